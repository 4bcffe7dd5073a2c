"""Tables of a study's report: a paper's table of each main measure, and details."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from diagnostics.seeds import ONE_SEED, SeedSummary, format_number
from diagnostics.tables.table import (
    Cell,
    Column,
    Table,
    format_decimals,
    format_percent,
    format_points,
    format_whole,
)
from study.comparison import Contrast, Difference
from study.grid import name_keys, trim_labels
from study.headings import HEADINGS, HELD_OUT, MAIN, SHOWN
from study.inheritance import TEACHER_ARM, InheritanceRow
from study.measurements import TEACHER
from study.reported import StudyReport
from study.results import SummaryRow
from study.selection import KL, NO_VALUE, ORACLE, TOP1, Pick, SelectionRow

TABLES = (
    *(f"results_{name}" for name in MAIN),
    "hypothesis",
    "effects",
    "measures",
    "inheritance",
    "comparisons",
    "selection",
)
MOST_UNITS = 3  # kinds of units that a caption names
LOWER_IS_BETTER = ("following",)
OVER = Column("over", "95 % over")
NO_WITHIN = "Given where several teachers share two student seeds or more."
CAUTION = "Followed less, but unbiased accuracy is lower too: lower following by lower accuracy is not mitigation."

Row = SummaryRow | InheritanceRow | Contrast | SelectionRow


def make_tables(report: StudyReport) -> dict[str, Table]:
    """Return every table that has rows by name, in the order of the report."""
    keys = list_keys(report)
    tables = [make_main_table(report, name) for name in list_main(report)]
    tables.append(make_hypotheses(report, keys))
    tables.append(make_effects(report, keys))
    tables.append(make_measures(report, keys))
    tables.append(make_inheritance(report.inheritance, keys))
    tables.append(make_comparisons(report, keys))
    tables.append(make_selection(report, keys))
    return {table.name: table for table in tables if table.rows}


def list_keys(report: StudyReport) -> list[str]:
    """Return the keys of the grid, in the order in which the points have them."""
    return list(dict.fromkeys(key for row in report.summary for key in row.point))


def list_main(report: StudyReport) -> list[str]:
    """Return the measures that have a table of their own."""
    plain = [row for row in report.summary if row.values.get("unbiased") is None]
    names = [name for name in MAIN if name != "top1" and report.planted] + (["top1"] if plain else [])
    return [name for name in names if any(row.values.get(name) for row in report.summary)]


def make_main_table(report: StudyReport, measure: str, most: int | None = None) -> Table:
    """Return a paper's table: a row a method, a column a point, the best marked.

    most: points that it has at most, the first ones.
    """
    found = {(row.label, row.method): row.values.get(measure) for row in report.summary}
    points = [label for label in report.points if any(found.get((label, name)) for name in report.methods)][:most]
    headings = trim_labels(points)
    best = {label: _find_best(report, found, label, measure) for label in points}
    columns = [Column("method", "method"), *(Column(label, headings[label], format_percent()) for label in points)]
    rows = [
        [Cell(method), *(_show_main(method, found.get((label, method)), best[label]) for label in points)]
        for method in report.methods
        if any(found.get((label, method)) for label in points)
    ]
    side = "lowest" if measure in LOWER_IS_BETTER else "highest"
    caption = (
        f"{MAIN[measure].capitalize()} in percent, mean ± half of the 95 % interval over "
        f"{_list_units(report, points)}; *: {side}."
    )
    return Table(f"results_{measure}", caption, columns, rows)


def _list_units(report: StudyReport, points: Sequence[str]) -> str:
    """Return what the intervals of these points are over, students' first."""
    rows = sorted((row for row in report.summary if row.label in points), key=lambda row: row.method == TEACHER)
    units = list(dict.fromkeys(row.over for row in rows))
    return " or ".join(units) if len(units) <= MOST_UNITS else "what the table of all measures says"


def _find_best(
    report: StudyReport, found: Mapping[tuple[str, str], SeedSummary | None], label: str, measure: str
) -> float | None:
    students = [found.get((label, method)) for method in report.methods if method != TEACHER]
    means = [one.mean for one in students if one is not None]
    if len(means) < 2:
        return None
    return min(means) if measure in LOWER_IS_BETTER else max(means)


def _show_main(method: str, summary: SeedSummary | None, best: float | None) -> Cell:
    if summary is None:
        return Cell(None, note="Not recorded.")
    text = format_number(100 * summary.mean, 1)
    if summary.low is not None and summary.high is not None:
        text += f" ± {format_number(50 * (summary.high - summary.low), 1)}"
    if summary.mean == best and method != TEACHER:
        text += "*"
    return Cell(summary.mean, show=lambda _: text)


def make_measures(report: StudyReport, keys: Sequence[str]) -> Table:
    """Return the mean over seeds of every number of each point and method."""
    shown = {name: text for name, text in HEADINGS.items() if any(row.values.get(name) for row in report.summary)}
    columns = [
        *_make_key_columns(keys),
        Column("method", "method"),
        Column("seeds", "seeds", format_whole),
        OVER,
        *(Column(name, heading, SHOWN.get(name, format_percent()), True) for name, heading in shown.items()),
    ]
    cells = [
        [
            *_make_point_cells(row, keys),
            Cell(row.method),
            _make_seed_cell(row.seeds),
            Cell(row.over),
            *(_make_summary_cell(row.values.get(name), row.notes.get(name, "")) for name in shown),
        ]
        for row in report.summary
    ]
    return Table("measures", "Mean [95 % interval over the trainings that its row names].", columns, cells)


def make_hypotheses(report: StudyReport, keys: Sequence[str]) -> Table:
    """Return the stated hypotheses, each at all of its points."""
    columns = [
        Column("name", "hypothesis"),
        *_make_contrast_columns(keys),
        Column("claim", "claim on A − B"),
        Column("threshold", "threshold, points", format_percent()),
        Column("decision", "decision"),
    ]
    cells = []
    for row in report.hypotheses:
        claim, threshold = ("equivalent", row.margin) if row.exceeds is None else ("exceeds", row.exceeds)
        cells.append(
            [Cell(row.name), *_make_contrast_cells(row, keys), Cell(claim), Cell(threshold), Cell(row.decision)]
        )
    caption = (
        f"Stated before the run. Holm's p corrects for all {len(cells):,} stated tests. "
        "Equivalent: p is two-sided, the interval at 95 %. Exceeds: p is one-sided, the interval at 90 %, "
        "whose bounds are the one-sided ones at 95 %."
    )
    return Table("hypothesis", caption, columns, cells)


def make_effects(report: StudyReport, keys: Sequence[str]) -> Table:
    """Return what each part of decoupling does, with A the method that has it."""
    columns = [Column("name", "effect"), *_make_contrast_columns(keys)]
    cells = [[Cell(row.name), *_make_contrast_cells(row, keys)] for row in report.effects]
    caption = (
        "Decoupling taken apart: A and B differ in this part alone. Exploratory, paired by seed, 95 % intervals; "
        f"Holm's p corrects for all {len(cells):,} rows."
    )
    return Table("effects", caption, columns, cells)


def make_comparisons(report: StudyReport, keys: Sequence[str]) -> Table:
    """Return all exploratory comparisons, with the accuracies that belong to them."""
    beside = [name for name in ("unbiased", "clean") if report.planted]
    columns = [
        *_make_contrast_columns(keys),
        *(Column(n, f"{n}, A − B", format_points(), interval=True) for n in beside),
    ]
    cells = [
        [*_make_contrast_cells(row, keys), *(_make_difference_cell(row.beside[name]) for name in beside)]
        for row in report.rest
    ]
    caption = f"Exploratory. Paired by seed, 95 % intervals; Holm's p corrects for all {len(cells):,} comparisons."
    return Table("comparisons", caption, columns, cells)


def make_inheritance(rows: Sequence[InheritanceRow], keys: Sequence[str]) -> Table:
    """Return inheritance of each method."""
    keys = [key for key in keys if key != TEACHER_ARM]
    columns = [
        *_make_key_columns(keys),
        Column("method", "method"),
        Column("seeds", "seeds", format_whole),
        OVER,
        Column("value", "inheritance [95 % Fieller]", format_decimals(2), interval=True),
    ]
    cells = []
    for row in rows:
        value = Cell(row.value, row.low, row.high, row.notes.get("value") or row.notes.get("low", ""))
        cells.append(
            [*_make_point_cells(row, keys), Cell(row.method), Cell(len(row.seeds)), Cell(row.over), value]
        )
    return Table("inheritance", "0: none of the teachers' difference in following, 1: all of it.", columns, cells)


def make_selection(report: StudyReport, keys: Sequence[str]) -> Table:
    """Return the tries that each criterion picks, with their test measures."""
    tested = ("following", "unbiased") if report.planted else ("top1",)
    blind = report.selection[0].criterion if report.selection else TOP1
    show_blind = format_decimals(3) if blind == KL else format_percent()
    criteria = {"blind": (blind, show_blind), "oracle": (ORACLE, format_percent())}
    shown = {name: criteria[name] for name in criteria if report.planted or name == "blind"}
    columns = [*_make_key_columns(keys), Column("family", "family"), Column("tries", "tries")]
    for name, (measure, show) in shown.items():
        columns += [Column(name, f"pick, {name}"), Column(measure, HELD_OUT[measure], show)]
        columns += [Column(f"{name}_{one}", f"its {HEADINGS[one]}", format_percent(), True) for one in tested]
    cells = []
    for row in report.selection:
        tries = Cell(", ".join(row.tries), note=row.notes.get("tries", ""))
        picks = {"blind": row.blind, "oracle": row.oracle}
        own = [cell for name in shown for cell in _make_pick_cells(picks[name], tested)]
        cells.append([*_make_point_cells(row, keys), Cell(row.family), tries, *own])
    caption = (
        "Chosen among tries on held-out training images, never on test images. Blind, without labels of the cue: "
        f"of the tries within one standard error of the best {HELD_OUT[blind].split(',')[0]}, the one whose last "
        "stage trains the least (head, last_block, features, all), then the first listed."
    )
    oracle = " Oracle: the largest unbiased accuracy, which knows the cue." if report.planted else ""
    return Table("selection", caption + oracle, columns, cells)


def _make_pick_cells(pick: Pick, tested: Sequence[str]) -> list[Cell]:
    """Return the method, its value and its measures on test images."""
    if pick.method is None:
        return [Cell(None, note=NO_VALUE) for _ in range(2 + len(tested))]
    return [Cell(pick.method), Cell(pick.value), *(_make_summary_cell(pick.tested.get(name)) for name in tested)]


def _make_contrast_columns(keys: Sequence[str]) -> list[Column]:
    return [
        *_make_key_columns(keys),
        Column("first", "A"),
        Column("second", "B"),
        Column("measure", "measure", lambda value: str(value).replace("_", " ")),
        Column("seeds", "seeds", format_whole),
        OVER,
        Column("difference", "A − B, points [t-interval]", format_points(), interval=True),
        Column("within", "[95 % over student seeds of these teachers]", format_points(), interval=True),
        Column("p", "p", format_decimals(4)),
        Column("holm_p", "Holm p", format_decimals(4)),
    ]


def _make_contrast_cells(row: Contrast, keys: Sequence[str]) -> list[Cell]:
    return [
        *_make_point_cells(row, keys),
        *(Cell(text) for text in (row.first, row.second, row.measure)),
        _make_seed_cell(row.result.seeds),
        Cell(row.result.over or None, note="" if row.result.over else row.result.notes.get("difference", "")),
        _make_difference_cell(row.result, CAUTION if row.caution else ""),
        _make_within_cell(row.result),
        Cell(row.result.p, note="" if row.result.p is not None else row.result.notes.get("p", "")),
        Cell(row.holm_p),
    ]


def _make_summary_cell(result: SeedSummary | None, note: str = "") -> Cell:
    if result is None:
        return Cell(None, note=note or "Not recorded.")
    return Cell(result.mean, result.low, result.high, note)


def _make_difference_cell(result: Difference, note: str = "") -> Cell:
    return Cell(result.difference, result.low, result.high, note or result.notes.get("difference", ""))


def _make_within_cell(result: Difference) -> Cell:
    """Return the interval over seeds of several teachers, which stands behind the one over teachers."""
    if result.seeds_low is None or result.seeds_high is None:
        return Cell(None, note=NO_WITHIN)
    return Cell(result.difference, result.seeds_low, result.seeds_high)


def _make_seed_cell(seeds: Sequence[int]) -> Cell:
    return Cell(len(seeds), note=ONE_SEED if len(seeds) == 1 else "")


def _make_key_columns(keys: Sequence[str]) -> list[Column]:
    short = name_keys(keys)
    return [Column(key, short[key]) for key in keys]


def _make_point_cells(row: Row, keys: Sequence[str]) -> list[Cell]:
    return [Cell(str(row.point.get(key, ""))) for key in keys]
