"""Tables of models against each other: on the same images, and over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from diagnostics.evaluation.results import MethodOverSeeds, MethodsCompared, Pair
from diagnostics.statistics import PairedStatistics
from diagnostics.tables.table import (
    Cell,
    Column,
    Table,
    decimals,
    difference_cell,
    grouped,
    percent,
    signed,
    significant,
)

PAIR = (Column("a", "A"), Column("b", "B"))


class Compared(Protocol):
    """Two names and their paired statistics."""

    @property
    def a(self) -> str: ...
    @property
    def b(self) -> str: ...
    @property
    def statistics(self) -> PairedStatistics: ...


NO_PAIR = "A pair needs two models that classify."


def pairs(rows: Sequence[Pair]) -> Table:
    """By how much two models differ, and whether that is more than chance."""
    columns = [
        *PAIR,
        Column("difference", "B − A, points", signed(), interval=True),
        Column("only_a", "only A right", grouped),
        Column("only_b", "only B right", grouped),
        Column("quoted", "McNemar"),
        Column("log10_p", "log₁₀ p", decimals(2)),
        Column("holm_log10_p", "Holm log₁₀ p", decimals(2)),
        Column("detectable", "detectable (uncorrected), points", percent()),
    ]
    cells = [
        [
            Cell(row.a),
            Cell(row.b),
            difference_cell(row.interval),
            Cell(row.statistics.counts.b),
            Cell(row.statistics.counts.c),
            Cell(row.statistics.quoted),
            Cell(row.quoted_log10_p, note=row.statistics.notes.get(f"mcnemar_{row.statistics.quoted}", "")),
            Cell(row.holm_log10_p),
            Cell(row.detectable.difference, note=row.detectable.notes.get("difference", "")),
        ]
        for row in rows
    ]
    caption = "Accuracy difference with 95 % bootstrap interval, and the McNemar test to quote."
    return Table("pairs", caption, columns, cells, NO_PAIR)


def tests(rows: Sequence[Compared]) -> Table:
    """The four counts and every test made of them."""
    kinds = {
        "mcnemar_corrected": "McNemar corrected",
        "mcnemar": "uncorrected",
        "mcnemar_exact": "exact",
        "chi_square_yates": "χ² Yates",
        "chi_square": "χ² plain",
    }
    counts = {"a": "both right", "b": "only A", "c": "only B", "d": "both wrong"}
    columns = [*PAIR, *(Column(f"count_{cell}", heading, grouped) for cell, heading in counts.items())]
    for kind, heading in kinds.items():
        if kind != "mcnemar_exact":
            columns.append(Column(kind, heading, decimals(2)))
        columns.append(
            Column(f"{kind}_log10_p", "log₁₀ p" if kind != "mcnemar_exact" else "exact log₁₀ p", decimals(2))
        )
    cells = []
    for row in rows:
        statistics = row.statistics
        line = [Cell(row.a), Cell(row.b), *(Cell(getattr(statistics.counts, cell)) for cell in counts)]
        for kind in kinds:
            note, test = statistics.notes.get(kind, ""), getattr(statistics, kind)
            if kind != "mcnemar_exact":
                line.append(Cell(test.statistic, note=note))
            line.append(Cell(test.log10_p, note=note))
        cells.append(line)
    return Table(
        "tests", "Counts, McNemar's test and the chi-square test of independence.", columns, cells, NO_PAIR
    )


def errors(rows: Sequence[Compared]) -> Table:
    """Whether two models fail on the same images."""
    kinds = {
        "phi": "φ",
        "error_separation_index": "ESI",
        "error_dissimilarity": "error dissimilarity",
        "kappa": "κ",
        "yules_q": "Yule's Q",
    }
    columns = [
        *PAIR,
        *(Column(kind, heading, decimals(3)) for kind, heading in kinds.items()),
        Column("odds_ratio", "odds ratio", significant(2), interval=True),
        Column("disagreement", "disagreement, %", percent()),
        Column("double_fault", "double fault, %", percent()),
    ]
    cells = [
        [
            Cell(row.a),
            Cell(row.b),
            *(Cell(getattr(row.statistics, kind), note=row.statistics.notes.get(kind, "")) for kind in kinds),
            _odds_cell(row.statistics),
            Cell(row.statistics.disagreement),
            Cell(row.statistics.double_fault),
        ]
        for row in rows
    ]
    return Table("errors", "How alike the errors of two models are.", columns, cells, NO_PAIR)


def _odds_cell(statistics: PairedStatistics) -> Cell:
    odds = statistics.odds_ratio
    return Cell(odds.value, odds.low, odds.high, statistics.notes.get("odds_ratio", ""))


def seeds(methods: Mapping[str, MethodOverSeeds]) -> Table:
    """Mean over seeds of each student method."""
    columns = [
        Column("method", "method"),
        Column("n", "seeds", grouped),
        Column("mean", "mean top-1, % [95 % over seeds]", percent(2), interval=True),
        Column("sd", "sd, points", percent(2)),
    ]
    cells = [
        [
            Cell(method),
            Cell(row.summary.n),
            Cell(row.summary.mean, row.summary.low, row.summary.high, row.summary.notes.get("low", "")),
            Cell(row.summary.sd, note=row.summary.notes.get("sd", "")),
        ]
        for method, row in methods.items()
    ]
    return Table("seeds", "Top-1 over training seeds.", columns, cells, "No student was trained with a seed.")


def seed_comparisons(comparisons: Sequence[MethodsCompared]) -> Table:
    """Compare the method in question with every other one, paired by seed."""
    columns = [
        *PAIR,
        Column("n", "seeds", grouped),
        Column("difference", "B − A, points [95 % t-interval]", signed(2), interval=True),
        Column("sd", "sd, points", percent(2)),
        Column("t", "t", decimals(2)),
        Column("p", "p", decimals(4)),
        Column("wilcoxon_p", "Wilcoxon p", decimals(4)),
    ]
    measured = ("sd", "t", "p", "wilcoxon_p")
    cells = [
        [
            Cell(row.a),
            Cell(row.b),
            Cell(row.result.n),
            difference_cell(row.result),
            *(Cell(getattr(row.result, name), note=row.result.notes.get(name, "")) for name in measured),
        ]
        for row in comparisons
    ]
    why = "Comparing methods over seeds needs two methods with two seeds in common."
    return Table("seed_comparisons", "Methods against each other, paired by seed.", columns, cells, why)
