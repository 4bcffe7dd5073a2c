"""The tables of a study's report: measures, fidelity, inheritance, comparisons and self-checks.

Each is made for all points, with a column for each key of the grid; `at` cuts out one point.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from diagnostics.seeds import ONE_SEED
from diagnostics.tables.table import Cell, Column, Table, decimals, grouped, percent, signed
from study.checks import Check
from study.comparison import Contrast, Difference
from study.grid import shorten_keys
from study.reported import StudyReport
from study.results import STUDENT_ARM, TEACHER_ARM, InheritanceRow, SummaryRow
from study.selection import BLIND, NO_VALUE, ORACLE, Pick, SelectionRow

MEASURES = {
    "following": "cue following, %",
    "excess_following": "excess following, points",
    "unbiased": "unbiased, %",
    "clean": "clean, %",
    "worst_group": "worst group, %",
    "aligned": "aligned, %",
    "conflicting": "conflicting, %",
    "cue_bias": "cue bias, %",
    "flip_rate": "flip rate, %",
    "cue_decoding": "cue decodable, %",
    "label_decoding": "label decodable, %",
}
HELD_OUT = {  # on held-out training images, where there are some
    "held_out_kl": "held-out KL, nats",
    "held_out_top1": "held-out top-1, %",
    "held_out_unbiased": "held-out unbiased, %",
}
BRIEF = ("following", "excess_following", "unbiased", "clean", "worst_group")  # for a terminal
PLAIN = {"top1": "test top-1, %"}  # of a study without a cue
FIDELITY = {
    "fidelity_aligned": "same answer, aligned, %",
    "fidelity_conflicting": "same answer, conflicting, %",
    "fidelity_followed": "same answer, teacher followed, %",
    "also_followed": "follows, teacher followed, %",
}
SHOWN = {"excess_following": signed(), "held_out_kl": decimals(3)}  # all others in percent
RESULTS = {True: "passed", False: "FAILED", None: "not checked"}
FAIR = "Teacher and students of this point trained on random cues: the excess of others is taken against it."
NO_FAIR = "Not recorded with random cues for teacher and students, so there is nothing to take it against."
CAUTION = "Followed less, but unbiased accuracy is lower too: lower following by lower accuracy is not mitigation."
NO_MODEL = "No finished model is on record."


def all_tables(report: StudyReport) -> dict[str, Table]:
    """Return every table of all points by name, in the order of the report."""
    summary, planted = report.summary, report.planted
    held_out = {name: text for name, text in HELD_OUT.items() if any(row.values.get(name) for row in summary)}
    unplanted = any("unbiased" not in row.values for row in summary)
    shown = {**(MEASURES if planted else {}), **(PLAIN if unplanted else {}), **held_out}
    tables = [measures(summary, shown, keys(report))]
    if planted:
        students = [row for row in summary if row.method != "teacher"]
        tables.append(fidelity(students, keys(report)))
        tables.append(inheritance(report.inheritance, report.notes, keys(report)))
    tables.append(comparisons(report.rest, keys(report), planted))
    tables.append(hypothesis(report.hypotheses, report.notes, keys(report)))
    if report.selection:
        tables.append(selection(report.selection, keys(report), planted))
    if report.checks:
        tables.append(checks(report.checks))
    return {table.name: table for table in tables}


def keys(report: StudyReport) -> list[str]:
    """Return the keys of the grid, in the order in which the points have them."""
    return list(dict.fromkeys(key for row in report.summary for key in row.point))


def at(table: Table, row: SummaryRow, names: Sequence[str]) -> Table:
    """Return the part of a table that is about the point of a row, without the columns that name it."""
    point = {column.key: str(row.point.get(column.key, "")) for column in table.columns if column.key in names}
    kept = [number for number, column in enumerate(table.columns) if column.key not in point]
    width = len(point)  # the keys come first
    rows = [cells for cells in table.rows if [cell.value for cell in cells[:width]] == list(point.values())]
    return replace(
        table,
        caption=f"{row.label[:1].upper()}{row.label[1:]}. {table.caption}",
        columns=[table.columns[number] for number in kept],
        rows=[[cells[number] for number in kept] for cells in rows],
    )


def measures(rows: Sequence[SummaryRow], shown: Mapping[str, str], names: Sequence[str]) -> Table:
    """Return means over seeds of each point and method."""
    caption = "Mean over seeds with its 95 % interval, by t on the logit where it is a share."
    return _over_seeds("measures", caption, rows, shown, names)


def fidelity(rows: Sequence[SummaryRow], names: Sequence[str]) -> Table:
    """Return how often a student answers as its teacher does, and where."""
    caption = "Share of shown test images on which a student answers as its teacher, mean over seeds."
    return _over_seeds("fidelity", caption, rows, FIDELITY, names)


def inheritance(rows: Sequence[InheritanceRow], notes: Mapping[str, str], names: Sequence[str]) -> Table:
    """Return what students of a biased teacher have of its following, less what those of an unbiased one have."""
    names = [name for name in names if name != TEACHER_ARM]
    columns = [
        *_keys(names),
        Column("method", "method"),
        Column("seeds", "seeds", grouped),
        Column("value", "inheritance [95 % Fieller]", decimals(2), interval=True),
    ]
    cells = [[*_point(row, names), Cell(row.method), Cell(len(row.seeds)), _inherited(row)] for row in rows]
    caption = "Inheritance: 0 none of the teachers' difference in following, 1 all of it."
    return Table("inheritance", caption, columns, cells, notes.get("inheritance", ""))


def comparisons(rows: Sequence[Contrast], names: Sequence[str], planted: bool) -> Table:
    """Return all comparisons beside the primary one, with the accuracies that belong to them."""
    beside = [name for name in ("unbiased", "clean") if planted]
    columns = [
        *_keys(names),
        Column("first", "A"),
        Column("second", "B"),
        Column("measure", "measure", lambda value: str(value).replace("_", " ")),
        Column("seeds", "seeds", grouped),
        Column("difference", "A − B, points [95 % t]", signed(), interval=True),
        *(Column(name, f"{name}, A − B", signed(), interval=True) for name in beside),
        Column("p", "p", decimals(4)),
        Column("holm_p", "Holm p", decimals(4)),
    ]
    cells = [
        [
            *_point(row, names),
            *_compared(row),
            _difference(row.result, CAUTION if row.caution else ""),
            *(_difference(row.beside[name]) for name in beside),
            *_p_values(row),
        ]
        for row in rows
    ]
    caption = f"Paired by seed; Holm's p allows for all {len(rows):,} comparisons of the study together."
    return Table("comparisons", caption, columns, cells, "Comparing needs two methods at one point.")


def hypothesis(rows: Sequence[Contrast], notes: Mapping[str, str], names: Sequence[str]) -> Table:
    """Return the stated hypotheses, each at all of its points."""
    columns = [
        Column("name", "hypothesis"),
        *_keys(names),
        Column("first", "A"),
        Column("second", "B"),
        Column("measure", "measure"),
        Column("seeds", "seeds", grouped),
        Column("difference", "A − B, points [95 % t]", signed(), interval=True),
        Column("p", "p", decimals(4)),
        Column("holm_p", "Holm p", decimals(4)),
        Column("claim", "claim on A − B"),
        Column("threshold", "threshold, points", percent()),
        Column("decision", "decision"),
    ]
    cells = [
        [
            Cell(row.name),
            *_point(row, names),
            *_compared(row),
            _difference(row.result),
            *_p_values(row),
            Cell("equivalent" if row.exceeds is None else "exceeds"),
            Cell(row.margin if row.exceeds is None else row.exceeds),
            Cell(row.decision),
        ]
        for row in rows
    ]
    caption = (
        f"Stated before running; Holm's p allows for all {len(rows):,} stated tests. "
        "p: two-sided for a claim of equivalence, one-sided above the threshold for one that exceeds it."
    )
    return Table("hypothesis", caption, columns, cells, notes.get("hypotheses", ""))


def selection(rows: Sequence[SelectionRow], names: Sequence[str], planted: bool) -> Table:
    """Return which try of each family either criterion takes, and what that one does on test images."""
    tested = ("following", "unbiased") if planted else ("top1",)
    shown = {**MEASURES, **PLAIN}
    columns = [
        *_keys(names),
        Column("family", "family"),
        Column("tries", "tries"),
        Column("blind", "pick, blind"),
        Column(BLIND, HELD_OUT[BLIND], decimals(3)),
        *(Column(f"blind_{name}", f"its {shown[name]}", percent(), True) for name in tested),
    ]
    if planted:
        columns += [
            Column("oracle", "pick, oracle"),
            Column(ORACLE, HELD_OUT[ORACLE], percent()),
            *(Column(f"oracle_{name}", f"its {shown[name]}", percent(), True) for name in tested),
        ]
    cells = [
        [
            *_point(row, names),
            Cell(row.family),
            Cell(", ".join(row.tries), note=row.notes.get("tries", "")),
            *_picked(row.blind, tested),
            *(_picked(row.oracle, tested) if planted else []),
        ]
        for row in rows
    ]
    caption = (
        "Choosing among tries, on held-out training images: no test image has a part in it. Blind: the smallest "
        "KL from the teacher, which needs no label of the cue."
    )
    oracle = " Oracle: the largest unbiased accuracy, which knows the cue." if planted else ""
    return Table("selection", caption + oracle, columns, cells)


def _picked(pick: Pick, tested: Sequence[str]) -> list[Cell]:
    """Return the method, its value and what it does on test images."""
    if pick.method is None:
        return [Cell(None, note=NO_VALUE) for _ in range(2 + len(tested))]
    found = {name: pick.tested.get(name) for name in tested}
    cells = [
        Cell(one.mean, one.low, one.high) if one else Cell(None, note="Not recorded.") for one in found.values()
    ]
    return [Cell(pick.method), Cell(pick.value), *cells]


def checks(rows: Sequence[Check]) -> Table:
    """Return what the study checks of itself."""
    columns = [
        Column("check", "check", lambda value: str(value).replace("_", " ")),
        Column("result", "result"),
        Column("value", "worst, %", percent()),
        Column("limit", "limit, %", percent()),
    ]
    cells = [
        [
            Cell(row.name),
            Cell(RESULTS[row.passed]),
            Cell(row.value, note="" if row.passed is not None else f"{row.sentence}."),
            Cell(row.limit),
        ]
        for row in rows
    ]
    return Table("checks", "What the study checks of itself.", columns, cells, "Nothing was checked.")


def _over_seeds(
    name: str, caption: str, rows: Sequence[SummaryRow], shown: Mapping[str, str], names: Sequence[str]
) -> Table:
    columns = [
        *_keys(names),
        Column("method", "method"),
        Column("seeds", "seeds", grouped),
        *(Column(key, heading, SHOWN.get(key, percent()), True) for key, heading in shown.items()),
    ]
    cells = [
        [
            *_point(row, names),
            Cell(row.method),
            _seeds(len(row.seeds)),
            *(_summary(row, key) for key in shown),
        ]
        for row in rows
    ]
    return Table(name, caption, columns, cells, NO_MODEL)


def _summary(row: SummaryRow, name: str) -> Cell:
    """Return a mean over seeds; with one seed the column of seeds says why there is no interval."""
    result, note = row.values.get(name), row.notes.get(name, "")
    if result is None:
        return Cell(None, note=note or _why(row, name))
    note = note or (result.notes.get("low", "") if result.n > 1 else "")
    return Cell(result.mean, result.low, result.high, note)


def _why(row: SummaryRow, name: str) -> str:
    if name != "excess_following":
        return "Not recorded."
    arms = {row.point.get(key, "unbiased") for key in (TEACHER_ARM, STUDENT_ARM)}
    return FAIR if TEACHER_ARM in row.point and arms == {"unbiased"} else NO_FAIR


def _inherited(row: InheritanceRow) -> Cell:
    return Cell(row.value, row.low, row.high, row.notes.get("value") or row.notes.get("low", ""))


def _compared(row: Contrast) -> list[Cell]:
    return [Cell(row.first), Cell(row.second), Cell(row.measure), _seeds(len(row.result.seeds))]


def _difference(result: Difference, note: str = "") -> Cell:
    """Return a difference with its interval; with one seed the column of seeds says why there is none."""
    if not note and len(result.seeds) != 1:
        note = result.notes.get("low", "") if result.difference is not None else _missing(result, "difference")
    return Cell(result.difference, result.low, result.high, note)


def _p_values(row: Contrast) -> list[Cell]:
    values = {"p": row.result.p, "holm_p": row.holm_p}
    return [Cell(p, note="" if p is not None else _missing(row.result, name)) for name, p in values.items()]


def _missing(result: Difference, name: str) -> str:
    """Return why a number of a comparison is not there."""
    notes = result.notes
    return notes.get(name) or notes.get("p") or notes.get("difference", "")


def _seeds(count: int) -> Cell:
    return Cell(count, note=ONE_SEED if count == 1 else "")


def _keys(names: Sequence[str]) -> list[Column]:
    short = shorten_keys(names)
    return [Column(name, short[name]) for name in names]


def _point(row: SummaryRow | InheritanceRow | Contrast | SelectionRow, names: Sequence[str]) -> list[Cell]:
    return [Cell(str(row.point.get(name, ""))) for name in names]
