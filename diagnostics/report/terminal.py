"""What `main_eval.py` prints of four counts and of several runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diagnostics.evaluation.runs import RunsCompared
from diagnostics.statistics import PairedStatistics
from diagnostics.tables import comparison as tables_comparison
from diagnostics.tables import runs as tables_runs
from diagnostics.tables.table import to_text


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


def runs_text(compared: RunsCompared, folder: Path) -> str:
    """The paper's table of several runs, all their models, and the tests across them, as text."""
    tables = tables_runs.all_tables(compared)
    parts = [
        *(to_text(table) for table in tables.values()),
        *([row.sentence for row in compared.seeds] or [row.sentence for row in compared.pairs]),
        *compared.notes,
        *(f"missing: {line}" for line in compared.missing),
        f"files: {folder}/report.html, report.json, tables/, figures/",
    ]
    return "\n".join(parts)
