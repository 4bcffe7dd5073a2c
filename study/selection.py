"""A choice among tries of a method on held-out training images.

The blind criterion needs no label of the cue: the smallest KL from the teacher, under cues as in training. The
oracle criterion knows the cue: the largest unbiased accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from diagnostics.seeds import SeedSummary
from study.grid import Point
from study.measurements import Measurement, find_number
from study.units import Unit, summarise_units

BLIND, ORACLE = "held_out_kl", "held_out_unbiased"
TESTED = ("following", "unbiased", "top1")  # measures of a pick on test images
NO_VALUE = "No seed has this number of every try."


@dataclass(frozen=True)
class Pick:
    """The try of a criterion, its value and test measures; None without a choice."""

    method: str | None
    value: float | None  # mean over the seeds that all tries have
    tested: Mapping[str, SeedSummary | None]


@dataclass(frozen=True)
class SelectionRow:
    """A family of tries at one point of the grid."""

    point: Point
    label: str
    family: str
    tries: list[str]  # those that were recorded
    blind: Pick
    oracle: Pick
    notes: Mapping[str, str]


def select_tries(
    groups: Mapping[tuple[str, str], Mapping[Unit, Measurement]], tries: Mapping[str, Sequence[str]]
) -> list[SelectionRow]:
    """Return both choices of each family at each point.

    groups: records by point as JSON and method, then by unit. tries: methods by family.
    """
    rows = []
    for key, record in {key: next(iter(group.values())) for (key, _), group in groups.items()}.items():
        for family, methods in tries.items():
            found = {method: groups[key, method] for method in methods if (key, method) in groups}
            absent = [method for method in methods if method not in found]
            notes = {"tries": f"Not recorded: {', '.join(absent)}."} if absent else {}
            picks = _pick_best(found, BLIND, smallest=True), _pick_best(found, ORACLE, smallest=False)
            rows.append(SelectionRow(record.point, record.place, family, list(found), *picks, notes))
    return rows


def _pick_best(found: Mapping[str, Mapping[Unit, Measurement]], name: str, smallest: bool) -> Pick:
    """Return the try with the best mean over common seeds; of equal ones the first."""
    values = {
        method: {unit: value for unit, record in group.items() if (value := find_number(record, name)) is not None}
        for method, group in found.items()
    }
    units = set.intersection(*map(set, values.values())) if values else set()
    if not units:
        return Pick(None, None, {})
    means = {method: float(np.mean([own[unit] for unit in sorted(units)])) for method, own in values.items()}
    best = min(means, key=lambda method: means[method] if smallest else -means[method])
    return Pick(best, means[best], {measure: _summarise_tested(found[best], measure) for measure in TESTED})


def _summarise_tested(group: Mapping[Unit, Measurement], name: str) -> SeedSummary | None:
    given = {unit: value for unit, record in group.items() if (value := find_number(record, name)) is not None}
    teachers = {unit: record.teacher_hash for unit, record in group.items()}
    return summarise_units(given, teachers, is_share=True) if given else None
