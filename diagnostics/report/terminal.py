"""What `main_eval.py` prints of four counts and of several runs."""

from __future__ import annotations

from dataclasses import dataclass

from diagnostics.results import ModelAccuracy
from diagnostics.runs import RunsCompared
from diagnostics.statistics import PairedStatistics
from diagnostics.tables import comparison as tables_comparison
from diagnostics.tables.table import Cell, Column, Table, percent, to_text


@dataclass(frozen=True)
class AB:
    """A pair without names."""

    statistics: PairedStatistics
    a: str = "A"
    b: str = "B"


def counts_text(statistics: PairedStatistics) -> str:
    """Tests and error similarity of one pair as text."""
    rows = [AB(statistics)]
    accuracies = f"A {100 * statistics.accuracy_a:.2f} %, B {100 * statistics.accuracy_b:.2f} %"
    head = f"{statistics.n:,} images: {accuracies}; McNemar to quote: {statistics.quoted}\n"
    return "\n".join([head, to_text(tables_comparison.tests(rows)), to_text(tables_comparison.errors(rows))])


def runs_text(comparison: RunsCompared) -> str:
    """All models of several runs, and the tests across them, as text."""
    parts = [
        to_text(_models(comparison)),
        to_text(tables_comparison.pairs(comparison.pairs)),
        to_text(tables_comparison.seed_comparisons(comparison.seeds)),
        *([row.sentence for row in comparison.seeds] or [row.sentence for row in comparison.pairs]),
        *comparison.notes,
    ]
    return "\n".join(parts)


def _models(comparison: RunsCompared) -> Table:
    columns = [
        Column("run", "run"),
        Column("model", "model"),
        Column("arch", "architecture"),
        Column("top1", "top-1, %", percent(2), interval=True),
    ]
    rows = [
        [Cell(row.run), Cell(row.accuracy.name), Cell(row.accuracy.arch), _top1(row.accuracy)]
        for row in comparison.models
    ]
    return Table("runs", "All models of all runs, 95 % Wilson intervals.", columns, rows, "No model classifies.")


def _top1(accuracy: ModelAccuracy) -> Cell:
    return Cell(accuracy.top1, accuracy.low, accuracy.high)
