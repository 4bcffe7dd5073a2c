"""Results of a study: means over seeds and teachers, tests, inheritance, choices and checks.

A point is one combination of the grid's values. Models of one point and seed share images, order and initial
weights, so they are compared in pairs by seed, and by teacher where a point has several. Numbers are shares.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from diagnostics.seeds import SeedSummary
from diagnostics.shortcut.measures import compute_excess_following
from settings.study import Hypothesis
from study.checks import Check, describe_unaligned, list_failed, list_limitations, run_checks
from study.comparison import (
    UNBIASED,
    Contrast,
    Difference,
    apply_holm,
    compare_paired,
    compute_above,
    decide,
    describe_caution,
    describe_difference,
    describe_stated,
)
from study.effects import Effect
from study.grid import Point, has_values
from study.groups import (
    Group,
    Groups,
    group_records,
    list_group_points,
    list_seeds,
    list_teachers,
    make_key,
    place_group,
)
from study.inheritance import TEACHER_ARM, InheritanceRow, compute_inheritances
from study.measurements import MEASURES, TEACHER, Measurement, find_compared, list_numbers
from study.selection import SelectionRow, select_tries
from study.units import describe_units, summarise_units

STUDENT_ARM = "shortcut.students"  # as TEACHER_ARM
SHARES = {*MEASURES} - {"excess_following"}  # in 0..1
BESIDE = (UNBIASED, "clean")  # accuracies that stand beside every comparison
NO_TRIES: Mapping[str, Sequence[str]] = MappingProxyType({})


@dataclass(frozen=True)
class SummaryRow:
    """Every number of one point and method over its seeds."""

    point: Point
    label: str  # the point in words
    method: str
    seeds: list[int]
    values: Mapping[str, SeedSummary | None]  # None where no seed has it
    notes: Mapping[str, str]
    over: str = ""  # what the intervals are over


@dataclass(frozen=True)
class Results:
    """All results of a study; `notes` gives the reason of each part that is empty."""

    summary: list[SummaryRow]
    hypotheses: list[Contrast]
    rest: list[Contrast]
    effects: list[Contrast]  # named by the effect
    inheritance: list[InheritanceRow]
    checks: list[Check]
    limitations: list[str]
    selection: list[SelectionRow]
    notes: Mapping[str, str]


def compute_results(
    records: Sequence[Measurement],
    stated: Mapping[str, Hypothesis],
    tries: Mapping[str, Sequence[str]] = NO_TRIES,
    choose_by: str = "held_out_top1",
    effects: Sequence[Effect] = (),
) -> Results:
    """Return all results of a study.

    Args:
        records: of every model.
        stated: hypotheses by name.
        tries: methods by family, of which `choose_by` chooses one.
        effects: pairs of methods that show one part of decoupling.

    Raises:
        ValueError: two records of one point, method and seed.
    """
    groups = group_records(_add_excess(records))
    planted = any(record.measures for record in records)
    hypotheses = compare_stated(groups, stated)
    inherited = compute_inheritances(groups)
    notes = {}
    if not hypotheses:
        notes["hypotheses"] = "No model is at a point of a hypothesis." if stated else "None was stated."
    if not inherited:
        notes["inheritance"] = f"No teacher and student were recorded in both arms of {TEACHER_ARM}."
    return Results(
        summarise_groups(groups),
        hypotheses,
        compare_rest(groups, stated),
        compare_effects(groups, effects),
        inherited,
        [check for check in run_checks(records) if planted or check.passed is not None],
        list_limitations(records),
        select_tries(groups, tries, choose_by),
        notes,
    )


def summarise_groups(groups: Groups) -> list[SummaryRow]:
    """Return every number of each point and method over its seeds."""
    rows = []
    for (_, method), group in groups.items():
        per_seed = [list_numbers(record) for record in group.values()]
        teachers = list_teachers(group)
        values: dict[str, SeedSummary | None] = {}
        notes: dict[str, str] = {}
        for name in dict.fromkeys(name for numbers in per_seed for name in numbers):
            found = [numbers.get(name) for numbers in per_seed]
            given = {unit: value for unit, value in zip(group, found, strict=True) if value is not None}
            values[name] = summarise_units(given, teachers, name in SHARES) if given else None
            remarks = [record.measures.notes.get(name) for record in group.values() if record.measures]
            remark = next(filter(None, remarks), None)
            if len(given) < len(group):
                missing = f"Missing in {len(group) - len(given)} of {len(group)} trainings"
                notes[name] = f"{missing}: {remark or 'not recorded.'}"
            elif remark:
                notes[name] = remark
        over = describe_units(group, teachers, of_teachers=method == TEACHER)
        rows.append(SummaryRow(*place_group(group), method, list_seeds(group), values, notes, over))
    return rows


def compare_stated(groups: Groups, stated: Mapping[str, Hypothesis]) -> list[Contrast]:
    """Return every stated test at each of its points, with Holm's p over all."""
    rows, points = [], list_group_points(groups)
    for name, one in stated.items():
        for key, point in points.items():
            if has_values(point, one.where):
                row = _compare(groups, key, one.first, one.second, one.measure)
                result = row.result if one.exceeds is None else compute_above(row.result, one.exceeds)
                used = [groups.get((key, method), {}) for method in (one.first, one.second, TEACHER)]
                failed = list_failed([record for group in used for record in group.values()])
                row = replace(row, result=result, blocked_by=failed or None)
                rows.append(replace(row, name=name, margin=one.margin, exceeds=one.exceeds))
    decided = [replace(row, decision=decide(row)) for row in _correct(rows)]
    return [replace(row, sentence=describe_stated(row)) for row in decided]


def compare_rest(groups: Groups, stated: Mapping[str, Hypothesis]) -> list[Contrast]:
    """Return all other tests, by paired t with Holm's correction over all of them.

    With hypotheses: in the measure of each, every other method against its two, and its two where not stated.
    Without: all pairs of methods in cue following, or in top1 where no cue is planted. Methods of one point are
    compared, teachers are not among them.
    """
    rows = []
    for key, point in list_group_points(groups).items():
        here = {method: group for (other, method), group in groups.items() if other == key}
        methods = [method for method in here if method != TEACHER]
        planted = any(record.measures for group in here.values() for record in group.values())
        measure = "following" if planted else "top1"
        tests = _suggest_tests(methods, list(stated.values()), point) or [
            (first, second, measure) for first, second in itertools.combinations(methods, 2) if not stated
        ]
        rows += [_compare(groups, key, *test) for test in tests]
    return [replace(row, sentence=describe_difference(row)) for row in _correct(rows)]


def compare_effects(groups: Groups, effects: Sequence[Effect]) -> list[Contrast]:
    """Return every effect at each point: in following and unbiased accuracy, or in top1 where no cue is planted.

    Explored: Holm's correction is over all of these rows.
    """
    rows = []
    for key in list_group_points(groups):
        here = {method: group for (other, method), group in groups.items() if other == key}
        planted = any(record.measures for group in here.values() for record in group.values())
        for effect in effects:
            if effect.first in here and effect.second in here:
                for measure in ("following", UNBIASED) if planted else ("top1",):
                    row = _compare(groups, key, effect.first, effect.second, measure)
                    rows.append(replace(row, name=effect.name))
    return [replace(row, sentence=describe_difference(row)) for row in _correct(rows)]


def _correct(rows: Sequence[Contrast]) -> list[Contrast]:
    """Return the rows with Holm's p, and the cautions that follow from it."""
    return [replace(row, caution=describe_caution(row, row.beside[UNBIASED])) for row in apply_holm(rows)]


def _add_excess(records: Sequence[Measurement]) -> list[Measurement]:
    """Return the records, with excess where a counterpart trained on random cues."""
    measured = {(make_key(r.point), r.method, r.unit): r.measures for r in records if r.measures}
    result = []
    for record in records:
        fair = {**record.point, TEACHER_ARM: "unbiased", STUDENT_ARM: "unbiased"}
        reference = measured.get((make_key(fair), record.method, record.unit))
        if record.measures and reference and make_key(fair) != make_key(record.point):
            excess = compute_excess_following(record.measures, reference)
            record = replace(record, numbers={**record.numbers, "excess_following": excess})
        result.append(record)
    return result


def _suggest_tests(
    methods: Sequence[str], stated: Sequence[Hypothesis], point: Point
) -> list[tuple[str, str, str]]:
    """Return first, second and measure of unstated tests at a point."""
    known = {(frozenset((one.first, one.second)), one.measure) for one in stated if has_values(point, one.where)}
    found: list[tuple[str, str, str]] = []
    for one in stated:
        two = [name for name in (one.first, one.second) if name in methods]
        pairs = [(one.first, one.second)] if len(two) == 2 else []
        pairs += [(method, name) for name in two for method in methods if method not in two]
        for pair in pairs:
            if (frozenset(pair), one.measure) not in known:
                known.add((frozenset(pair), one.measure))
                found.append((*pair, one.measure))
    return found


def _compare(groups: Groups, key: str, first: str, second: str, measure: str) -> Contrast:
    """Compare two methods at one point, with accuracies."""
    pair = [groups.get((key, method), {}) for method in (first, second)]
    point, label = place_group(next(group for (other, _), group in groups.items() if other == key))
    result = _compare_groups(pair, measure)
    beside = {name: _compare_groups(pair, name) for name in BESIDE}
    remarks = zip((first, second), pair, strict=True)
    remark = "".join(describe_unaligned(name, group.values()) for name, group in remarks)
    return Contrast(point, label, first, second, measure, result, beside, None, remark)


def _compare_groups(pair: Sequence[Group], measure: str) -> Difference:
    values = [{unit: find_compared(record, measure) for unit, record in group.items()} for group in pair]
    first, second = ({unit: value for unit, value in one.items() if value is not None} for one in values)
    return compare_paired(first, second, list_teachers(pair[0]))
