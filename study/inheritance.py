"""Inheritance of a cue: how much more students follow it whose teacher follows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray

from diagnostics.shortcut.measures import compute_inheritance
from diagnostics.statistics import Noted
from study.grid import Point
from study.groups import Groups, list_group_points, list_seeds, list_teachers, make_key, place_group
from study.measurements import TEACHER
from study.units import Unit, describe_units

TEACHER_ARM = "shortcut.teacher"  # the grid key with the values biased, unbiased

Following = NDArray[np.float64] | None  # (n,) of each test image


@dataclass(frozen=True)
class InheritanceRow(Noted):
    """Inheritance of one method, at points that differ in the teacher's arm alone."""

    point: Point  # without that arm
    label: str
    method: str
    seeds: list[int]
    value: float | None
    low: float | None
    high: float | None
    notes: Mapping[str, str]
    over: str = ""  # what the interval is over


def compute_inheritances(groups: Groups) -> list[InheritanceRow]:
    """Return inheritance from points that differ in the teacher's arm alone."""
    rows, points = [], list_group_points(groups)
    for key, method in groups:
        point = points[key]
        other = make_key({**point, TEACHER_ARM: "unbiased"})
        names = [(key, method), (other, method), (key, TEACHER), (other, TEACHER)]
        if method == TEACHER or point.get(TEACHER_ARM) != "biased" or not all(name in groups for name in names):
            continue
        four = [{unit: r.per_image_following for unit, r in groups[name].items()} for name in names]
        place = place_group(groups[key, method], without=TEACHER_ARM)
        rows.append(_compute_inheritance(*place, method, four, list_teachers(groups[key, method])))
    return rows


def _compute_inheritance(
    point: Point,
    label: str,
    method: str,
    four: Sequence[Mapping[Unit, Following]],
    teachers: Mapping[Unit, str],
) -> InheritanceRow:
    """Return the inheritance of one method, over teachers where there are several.

    four: following per image by unit, of the students and of the teachers, biased and unbiased.
    """
    complete = {
        unit: [array for arm in four if _has_following(array := arm.get(unit))]  # (n,) each
        for unit in sorted(four[0])
    }
    units = [unit for unit, arrays in complete.items() if len(arrays) == len(four)]
    if not units:
        reason = "No seed has an answer to conflicting images of all four models."
        return InheritanceRow(point, label, method, [], None, None, None, {"value": reason})
    own = {unit: teachers[unit] for unit in units}
    several = dict.fromkeys(own.values()) if len(set(own.values())) > 1 else None
    rows = [[unit for unit in units if own[unit] == one] for one in several] if several else [[u] for u in units]
    arms = [
        np.stack([np.mean([complete[unit][number] for unit in row], axis=0) for row in rows])  # (S, n) each
        for number in range(len(four))
    ]
    found = compute_inheritance(arms[0], arms[1], arms[2], arms[3])
    over = describe_units(dict.fromkeys(units), own)
    seeds = list_seeds(units)
    return InheritanceRow(point, label, method, seeds, found.value, found.low, found.high, found.notes, over)


def _has_following(array: Following) -> TypeGuard[NDArray[np.float64]]:
    return array is not None and bool(np.isfinite(array).any())
