"""Tables of models against each other: on the same images, over seeds, and together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from diagnostics.evaluation.results import (
    Ensemble,
    MethodOverSeeds,
    MethodsCompared,
    ModelAccuracy,
    Pair,
    VariancesCompared,
)
from diagnostics.names import get_method
from diagnostics.statistics import PairedStatistics
from diagnostics.tables.table import (
    MODEL,
    PAIR,
    Cell,
    Column,
    Table,
    format_decimals,
    format_percent,
    format_points,
    format_whole,
    read_row,
    show_p,
)
from diagnostics.variance import GIVEN_RATIO

NO_PAIR = "A pair needs two models that classify."
NO_SEED = "Not trained with this seed."
NO_IMAGES = "Recorded before this was measured."
NO_SEEDS = "Comparing methods over seeds needs two methods with two seeds in common."


class Compared(Protocol):
    """Two names and their paired statistics."""

    @property
    def a(self) -> str: ...
    @property
    def b(self) -> str: ...
    @property
    def statistics(self) -> PairedStatistics: ...


PAIRS = (
    *PAIR,
    Column("difference", "B − A, points", format_points(), interval=True, path="interval.difference"),
    Column("only_a", "only A right", format_whole, path="statistics.counts.b"),
    Column("only_b", "only B right", format_whole, path="statistics.counts.c"),
    Column("quoted", "McNemar", path="statistics.quoted"),
    Column("p", "p", show_p, path="quoted_p"),
    Column("holm_p", "Holm p", show_p),
    Column("detectable", "detectable (uncorrected), points", format_percent(), path="detectable.difference"),
)
TESTS = (
    *PAIR,
    Column("count_a", "both right", format_whole, path="statistics.counts.a"),
    Column("count_b", "only A", format_whole, path="statistics.counts.b"),
    Column("count_c", "only B", format_whole, path="statistics.counts.c"),
    Column("count_d", "both wrong", format_whole, path="statistics.counts.d"),
    Column(
        "mcnemar_corrected", "McNemar corrected", format_decimals(2), path="statistics.mcnemar_corrected.statistic"
    ),
    Column("mcnemar_corrected_p", "p", show_p, path="statistics.mcnemar_corrected.p"),
    Column("mcnemar", "uncorrected", format_decimals(2), path="statistics.mcnemar.statistic"),
    Column("mcnemar_p", "p", show_p, path="statistics.mcnemar.p"),
    Column("mcnemar_exact_p", "exact p", show_p, path="statistics.mcnemar_exact.p"),
    Column("mcnemar_mid_p", "mid-p", show_p, path="statistics.mcnemar_mid_p.p"),
    Column("chi_square_yates", "χ² Yates", format_decimals(2), path="statistics.chi_square_yates.statistic"),
    Column("chi_square_yates_p", "p", show_p, path="statistics.chi_square_yates.p"),
    Column("chi_square", "χ² plain", format_decimals(2), path="statistics.chi_square.statistic"),
    Column("chi_square_p", "p", show_p, path="statistics.chi_square.p"),
)
ERRORS = (
    *PAIR,
    Column("phi", "φ", format_decimals(3), path="statistics.phi"),
    Column("error_separation_index", "ESI", format_decimals(3), path="statistics.error_separation_index"),
    Column(
        "error_dissimilarity", "error dissimilarity", format_decimals(3), path="statistics.error_dissimilarity"
    ),
    Column("kappa", "κ", format_decimals(3), path="statistics.kappa"),
    Column("yules_q", "Yule's Q", format_decimals(3), path="statistics.yules_q"),
    Column("odds_ratio", "odds ratio", format_decimals(2), interval=True, path="statistics.odds_ratio.value"),
    Column("disagreement", "disagreement, %", format_percent(), path="statistics.disagreement"),
    Column("double_fault", "double fault, %", format_percent(), path="statistics.double_fault"),
)
SEEDS = (
    replace(MODEL, key="method", heading="method"),
    Column("n", "seeds", format_whole, path="summary.n"),
    Column(
        "mean",
        "mean top-1, % [95 % over student seeds of one teacher]",
        format_percent(2),
        interval=True,
        path="summary.mean",
    ),
    Column("sd", "sd, points", format_percent(2), path="summary.sd"),
)
SEED_PAIRS = (
    *PAIR,
    Column("n", "seeds", format_whole, path="result.n"),
    Column(
        "difference",
        "B − A, points [95 % over student seeds]",
        format_points(2),
        interval=True,
        path="result.difference",
    ),
    Column("over_images", "[95 % over test images]", format_points(2), True, "images.difference", why=NO_IMAGES),
    Column("over_both", "[95 % over both]", format_points(2), True, "crossed.difference", why=NO_IMAGES),
    Column("sd", "sd, points", format_percent(2), path="result.sd"),
    Column("t", "t", format_decimals(2), path="result.t"),
    Column("p", "p", show_p, path="result.p"),
    Column("holm_p", "Holm p", show_p, why="There is no test to correct."),
    Column("wilcoxon_p", "Wilcoxon p", show_p, path="result.wilcoxon_p"),
)
ENSEMBLES = (
    replace(MODEL, key="members", heading="members"),
    Column("rule", "rule"),
    Column("top1", "top-1, %", format_percent(), interval=True),
    replace(MODEL, key="best", heading="best member", path="gain.a"),
    Column("best_top1", "its top-1, %", format_percent(), path="gain.statistics.accuracy_a"),
    Column("gain", "gain, points", format_points(), interval=True, path="gain.interval.difference"),
    Column("quoted", "McNemar", path="gain.statistics.quoted"),
    Column("p", "p", show_p, path="gain.quoted_p"),
    Column("holm_p", "Holm p", show_p, path="gain.holm_p"),
)
VARIANCES = (
    *PAIR,
    Column("n_a", "seeds of A", format_whole, path="result.n_a"),
    Column("n_b", "of B", format_whole, path="result.n_b"),
    Column("sd_a", "sd of A, points", format_percent(2), path="result.sd_a"),
    Column("sd_b", "of B", format_percent(2), path="result.sd_b"),
    Column("ratio", "B / A", format_decimals(2), path="result.ratio"),
    Column("statistic", "Brown-Forsythe W", format_decimals(2), path="result.statistic"),
    Column("p", "p", show_p, path="result.p"),
    Column("holm_p", "Holm p", show_p, why="There is no test to correct."),
    Column("smallest_p", "smallest p of so many seeds", show_p, path="result.smallest_p"),
    Column(
        "seeds_for_double",
        f"seeds for a ratio of {GIVEN_RATIO:g}",
        format_whole,
        path="result.seeds_for_double",
    ),
)


def make_pairs_table(rows: Sequence[Pair]) -> Table:
    """Return by how much two models differ, and whether that is more than chance."""
    caption = "Accuracy difference with 95 % bootstrap interval over test images, and the McNemar test to quote."
    return Table("pairs", caption, PAIRS, [read_row([row.a, row.b], row, PAIRS) for row in rows], NO_PAIR)


def make_tests_table(rows: Sequence[Compared]) -> Table:
    """Return the four counts and every test made of them."""
    caption = "Counts, McNemar's test and the chi-square test of independence."
    return Table("tests", caption, TESTS, [read_row([row.a, row.b], row, TESTS) for row in rows], NO_PAIR)


def make_errors_table(rows: Sequence[Compared]) -> Table:
    """Return how alike the errors of two models are."""
    caption = "How alike the errors of two models are; odds ratio with its 95 % interval over test images."
    return Table("errors", caption, ERRORS, [read_row([row.a, row.b], row, ERRORS) for row in rows], NO_PAIR)


def make_seeds_table(methods: Mapping[str, MethodOverSeeds], models: Sequence[ModelAccuracy]) -> Table:
    """Return the mean over seeds of each student method, and the accuracy of each seed."""
    numbers = sorted({seed for row in methods.values() for seed in row.seeds})
    columns = [*SEEDS, *(Column(f"seed_{number}", f"seed {number}, %", format_percent(2)) for number in numbers)]
    top1 = {(model.method, model.seed): model.top1 for model in models}
    rows = []
    for method, row in methods.items():
        found = [top1.get((method, seed)) for seed in numbers]
        cells = [Cell(value, note=NO_SEED if value is None else "") for value in found]
        rows.append([*read_row([method], row, SEEDS), *cells])
    return Table(
        "seeds", "Top-1 over student seeds of one teacher.", columns, rows, "No student was trained with a seed."
    )


def make_seed_pairs_table(comparisons: Sequence[MethodsCompared]) -> Table:
    """Return the method in question against every other one, paired by seed."""
    rows = [read_row([row.a, row.b], row, SEED_PAIRS) for row in comparisons]
    return Table(
        "seed_comparisons",
        "Methods against each other, paired by seed; students of one teacher on the same test images.",
        SEED_PAIRS,
        rows,
        NO_SEEDS,
    )


def make_ensembles_table(rows: Sequence[Ensemble]) -> Table:
    """Return what models reach together, and by how much that is above the best of them."""
    cells = [read_row([_join_members(row.members)], row, ENSEMBLES) for row in rows]
    caption = "Models answering together: gain over the best of them, with 95 % intervals over test images."
    return Table("ensembles", caption, ENSEMBLES, cells, "An ensemble needs two models that classify.")


def _join_members(members: Sequence[str]) -> str:
    methods = {get_method(name) for name in members}
    return " + ".join(members) if len(methods) > 1 else f"{methods.pop()} of {len(members)} seeds"


def make_variances_table(rows: Sequence[VariancesCompared]) -> Table:
    """Return whether the method in question varies as much over seeds as each other one."""
    cells = [read_row([row.a, row.b], row, VARIANCES) for row in rows]
    caption = "Spread of top-1 over training seeds, two methods beside each other, and the seeds it would take."
    return Table("variances", caption, VARIANCES, cells, "Two methods need two seeds each.")
