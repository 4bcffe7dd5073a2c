"""A choice among tries of a method on held-out training images.

The blind criterion needs no label of the cue: `study.choose_by` under cues as in training, with the
one-standard-error rule (Breiman et al. 1984). The oracle criterion knows the cue: the largest unbiased accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from diagnostics.seeds import SeedSummary
from study.grid import Point
from study.measurements import Measurement, find_number
from study.units import Unit, summarise_units

KL, TOP1, ORACLE = "held_out_kl", "held_out_top1", "held_out_unbiased"
SIMPLEST = ("head", "last_block", "features", "all")  # parts that a last stage trains, the least first
TESTED = ("following", "unbiased", "top1")  # measures of a pick on test images
ROUNDING = 1e-12  # of equal means
NO_VALUE = "No seed has this number of every try."


@dataclass(frozen=True)
class Pick:
    """The try of a criterion, its value and test measures; None without a choice.

    Among tries within `error` of `best`, the method is the one whose last stage trains the least.
    """

    method: str | None
    value: float | None  # mean over the seeds that all tries have
    best: str | None  # the try of the best mean
    error: float | None  # one standard error of that mean; 0 where the best mean decides
    tested: Mapping[str, SeedSummary | None]


@dataclass(frozen=True)
class SelectionRow:
    """A family of tries at one point of the grid."""

    point: Point
    label: str
    family: str
    tries: list[str]  # those that were recorded
    criterion: str  # of the blind pick
    blind: Pick
    oracle: Pick
    notes: Mapping[str, str]


def select_tries(
    groups: Mapping[tuple[str, str], Mapping[Unit, Measurement]],
    tries: Mapping[str, Sequence[str]],
    choose_by: str = TOP1,
) -> list[SelectionRow]:
    """Return both choices of each family at each point.

    groups: records by point as JSON and method, then by unit. tries: methods by family.
    choose_by: measure of the blind choice.
    """
    rows = []
    for key, record in {key: next(iter(group.values())) for (key, _), group in groups.items()}.items():
        for family, methods in tries.items():
            found = {method: groups[key, method] for method in methods if (key, method) in groups}
            absent = [method for method in methods if method not in found]
            notes = {"tries": f"Not recorded: {', '.join(absent)}."} if absent else {}
            picks = _pick_try(found, choose_by, is_blind=True), _pick_try(found, ORACLE, is_blind=False)
            rows.append(SelectionRow(record.point, record.place, family, list(found), choose_by, *picks, notes))
    return rows


def _pick_try(found: Mapping[str, Mapping[Unit, Measurement]], name: str, is_blind: bool) -> Pick:
    """Return the try of the best mean over common seeds; if blind, the simplest within one standard error."""
    values = {
        method: {unit: value for unit, record in group.items() if (value := find_number(record, name)) is not None}
        for method, group in found.items()
    }
    units = set.intersection(*map(set, values.values())) if values else set()
    if not units:
        return Pick(None, None, None, None, {})
    means = {}
    for method, own in values.items():
        teachers = {unit: found[method][unit].teacher_hash for unit in units}
        means[method] = summarise_units({unit: own[unit] for unit in units}, teachers, is_share=False)
    sign = -1 if name == KL else 1
    best = max(means, key=lambda method: sign * means[method].mean)  # of equal ones the first
    error = _estimate_error(means[best], name, found[best][min(units)].held_out_images) if is_blind else 0.0
    close = [method for method in means if sign * (means[best].mean - means[method].mean) <= error + ROUNDING]
    pick = min(close, key=lambda method: _rank_trained(found[method])) if is_blind else best
    tested = {measure: _summarise_tested(found[pick], measure) for measure in TESTED}
    return Pick(pick, means[pick].mean, best, error, tested)


def _estimate_error(summary: SeedSummary, name: str, images: int | None) -> float:
    """Return the standard error of a mean over seeds or teachers; of one accuracy, that of a share of `images`."""
    if summary.n > 1 and summary.sd is not None:
        return summary.sd / math.sqrt(summary.n)
    return math.sqrt(summary.mean * (1 - summary.mean) / images) if name == TOP1 and images else 0.0


def _rank_trained(group: Mapping[Unit, Measurement]) -> int:
    return SIMPLEST.index(next(iter(group.values())).trained)


def _summarise_tested(group: Mapping[Unit, Measurement], name: str) -> SeedSummary | None:
    given = {unit: value for unit, record in group.items() if (value := find_number(record, name)) is not None}
    teachers = {unit: record.teacher_hash for unit, record in group.items()}
    return summarise_units(given, teachers, is_share=True) if given else None
