"""What `main_eval.py` prints of four counts and of several runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from diagnostics.statistics import PairedStatistics
from diagnostics.tables import comparison as tables_comparison
from diagnostics.tables.table import Cell, Column, Table, percent, to_text


def counts_text(statistics: PairedStatistics) -> str:
    """Tests and error similarity of one pair as text."""
    rows = [{"a": "A", "b": "B", **asdict(statistics)}]
    accuracies = f"A {100 * statistics.accuracy_a:.2f} %, B {100 * statistics.accuracy_b:.2f} %"
    head = f"{statistics.n:,} images: {accuracies}; McNemar to quote: {statistics.quoted}\n"
    return "\n".join([head, to_text(tables_comparison.tests(rows)), to_text(tables_comparison.errors(rows))])


def runs_text(comparison: Mapping[str, Any]) -> str:
    """All models of several runs, and the tests across them, as text."""
    seeds = {"comparisons": comparison["seeds"]}
    parts = [
        to_text(_models(comparison)),
        to_text(tables_comparison.pairs(comparison["pairs"])),
        to_text(tables_comparison.seed_comparisons(seeds)),
        *(row["sentence"] for row in comparison["seeds"] or comparison["pairs"]),
        *comparison["notes"],
    ]
    return "\n".join(parts)


def _models(comparison: Mapping[str, Any]) -> Table:
    columns = [
        Column("run", "run"),
        Column("model", "model"),
        Column("arch", "architecture"),
        Column("top1", "top-1, %", percent(2), interval=True),
    ]
    rows = [
        [Cell(row["run"]), Cell(row["name"]), Cell(row["arch"]), Cell(row["top1"], row["low"], row["high"])]
        for row in comparison["models"]
    ]
    return Table("runs", "All models of all runs, 95 % Wilson intervals.", columns, rows, "No model classifies.")
