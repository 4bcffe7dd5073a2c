"""Tables of several runs: the paper's table with one column a run, and all their models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from diagnostics.evaluation.runs import RunsCompared, RunSummary
from diagnostics.tables.comparison import make_pairs_table, make_seed_pairs_table
from diagnostics.tables.table import (
    MODEL,
    Cell,
    Column,
    Table,
    format_decimals,
    format_percent,
    format_points,
    format_whole,
    show_p,
)

NO_PAIR = "This run has no teacher and student that were evaluated together."
OF_PAIR = ("teacher", "student", "over_seeds", "pair")
NOT_IN_REPORT = "Not in this run's report."
STATISTICS = "pair.statistics"
PAPER = (  # rows of the paper's table: each is read from a run as a column is from an object
    Column("teacher", "teacher", path="teacher.arch"),
    Column("student", "student", path="student.arch"),
    replace(MODEL, path="student.name"),
    Column("images", "test images", format_whole),
    Column("teacher_top1", "teacher's top-1, %", format_percent(2), True, "teacher.top1"),
    Column("student_top1", "student's top-1, %", format_percent(2), True, "student.top1"),
    Column(
        "student_top1_over_seeds",
        "the same over its student seeds, %",
        format_percent(2),
        True,
        "over_seeds.summary.mean",
    ),
    Column("difference", "student − teacher, points", format_points(2), True, "pair.interval.difference"),
    Column("count_a", "both right", format_whole, path=f"{STATISTICS}.counts.a"),
    Column("count_b", "only the teacher right", format_whole, path=f"{STATISTICS}.counts.b"),
    Column("count_c", "only the student right", format_whole, path=f"{STATISTICS}.counts.c"),
    Column("count_d", "both wrong", format_whole, path=f"{STATISTICS}.counts.d"),
    Column(
        "mcnemar_corrected",
        "McNemar corrected",
        format_decimals(2),
        path=f"{STATISTICS}.mcnemar_corrected.statistic",
    ),
    Column("mcnemar_corrected_p", "McNemar corrected, p", show_p, path=f"{STATISTICS}.mcnemar_corrected.p"),
    Column("mcnemar_exact_p", "McNemar exact, p", show_p, path=f"{STATISTICS}.mcnemar_exact.p"),
    Column("chi_square_yates", "χ² Yates", format_decimals(2), path=f"{STATISTICS}.chi_square_yates.statistic"),
    Column("chi_square_yates_p", "χ² Yates, p", show_p, path=f"{STATISTICS}.chi_square_yates.p"),
    Column("phi", "φ", format_decimals(3), path=f"{STATISTICS}.phi"),
    Column("error_separation_index", "ESI", format_decimals(3), path=f"{STATISTICS}.error_separation_index"),
    Column(
        "error_dissimilarity",
        "error dissimilarity (published as ESI)",
        format_decimals(3),
        path=f"{STATISTICS}.error_dissimilarity",
    ),
    Column(
        "cka_penultimate",
        "linear CKA, penultimate",
        format_decimals(3),
        path="representation.penultimate.linear.value",
    ),
    Column("cka_last", "linear CKA, last tap", format_decimals(3), path="representation.last.linear.value"),
    Column(
        "cosine_last", "cosine of projections, last tap", format_decimals(3), path="representation.last.cosine"
    ),
    Column("parameter_ratio", "× parameters", format_decimals(3), path="cost.parameters"),
    Column("flop_ratio", "× FLOPs", format_decimals(3), path="cost.flops"),
    Column("top1_gap", "training − test top-1, points", format_points(2), path="gap.top1_gap"),
    Column(
        "ensemble_gain",
        "gain with its teacher, points",
        format_points(2),
        True,
        "ensemble.gain.interval.difference",
    ),
)
MODELS = (
    Column("run", "run"),
    replace(MODEL, path="accuracy.name"),
    Column("arch", "architecture", path="accuracy.arch"),
    Column("top1", "top-1, %", format_percent(2), interval=True, path="accuracy.top1"),
)


def make_tables(compared: RunsCompared) -> dict[str, Table]:
    """Return every table of a comparison by name, in the order of its page."""
    pairs, seeds = make_pairs_table(compared.pairs), make_seed_pairs_table(compared.seeds)
    models = [[column.read(row) for column in MODELS] for row in compared.models]
    tables = [
        make_paper_table(compared.runs),
        replace(
            pairs,
            caption=f"The same method in two runs, on the same images. {pairs.caption}",
            empty="No two runs share a method, a seed and their test images.",
        ),
        replace(
            seeds,
            caption="The same method in two runs, paired by seed; one teacher in each run.",
            empty="No two runs share a method, two seeds and their test images.",
        ),
        Table(
            "runs",
            "All models of all runs, 95 % Wilson intervals over test images.",
            MODELS,
            models,
            "No model classifies.",
        ),
    ]
    return {table.name: table for table in tables}


def make_paper_table(runs: Sequence[RunSummary]) -> Table:
    """Return the paper's Table 3, teacher against student, one column a run, and more of their reports.

    CSV files have keys and fractions; readers see headings and percent.
    """
    columns = [Column("measure", "measure"), *(Column(run.run, run.run, interval=True) for run in runs)]
    rows = [[_name_measure(row), *(_read_measure(row, run) for run in runs)] for row in PAPER]
    caption = (
        "Teacher against student (first seed), one column a run, as each run's own report has it. 95 % intervals "
        "are over test images, unless the row says student seeds."
    )
    return Table("paper", caption, columns, rows if runs else [], "No run.")


def _name_measure(row: Column) -> Cell:
    return Cell(row.key, show=lambda _: row.heading)


def _read_measure(row: Column, run: RunSummary) -> Cell:
    cell = replace(row.read(run), show=row.show)
    if cell.value is not None or cell.note:
        return cell
    return replace(cell, note=NO_PAIR if row.path.startswith(OF_PAIR) else NOT_IN_REPORT)
