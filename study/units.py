"""The trainings that a mean is over: student seeds of one teacher, or several teachers with seeds each.

A unit is one training of a method at one point. With one teacher an interval is over its student seeds. With
several it is over teachers: means of the seeds within each, then the t-interval of these means. Where all teachers
have the same two or more seeds, these seeds count as a second random factor (`diagnostics.crossed`): what a seed
does to the students of every teacher does not average out over teachers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy import special

from diagnostics.crossed import MeanError, estimate_crossed_error
from diagnostics.seeds import SeedComparison, SeedSummary, compare_over_seeds, keep_inside, summarise

SHARED = "Not given where teachers share student seeds: it would leave out the spread over these."


class Unit(NamedTuple):
    """A seed, and the value of the grid that names the teacher where a point has several."""

    seed: int
    teacher: str = ""


@dataclass(frozen=True)
class UnitComparison:
    """Two methods on the same units: second - first of `result`, over teachers where there are several.

    error: that the interval and the tests of `result` rest on; None without an interval. by_seed: the same over
    the student seeds of these teachers alone, where all of them have the same two or more seeds.
    """

    result: SeedComparison
    error: MeanError | None
    by_seed: SeedSummary | None


def arrange(values: Mapping[Unit, float], teachers: Mapping[Unit, str]) -> dict[str, dict[int, float]]:
    """Return values by teacher and seed; where all teachers share seeds, of these alone.

    teachers: a digest of each unit's teacher.
    """
    found: dict[str, dict[int, float]] = {}
    for unit in sorted(values):
        found.setdefault(teachers[unit], {})[unit.seed] = values[unit]
    shared = set.intersection(*map(set, found.values()))
    return {key: {seed: row[seed] for seed in row if not shared or seed in shared} for key, row in found.items()}


def describe_units(values: Mapping[Unit, object], teachers: Mapping[Unit, str], of_teachers: bool = False) -> str:
    """Return what an interval is over: "5 student seeds of one teacher", "3 teachers, 2 seeds each".

    of_teachers: the values are the teachers' own.
    """
    rows = arrange(dict.fromkeys(values, 0.0), teachers)
    sizes = sorted({len(row) for row in rows.values()})
    if of_teachers:
        return "one teacher" if len(rows) == 1 else f"{len(rows)} teachers"
    if len(rows) == 1:
        return f"{sizes[0]} student seed{'s' * (sizes[0] > 1)} of one teacher"
    if sizes == [1] and len({seed for row in rows.values() for seed in row}) == 1:
        return f"{len(rows)} teachers, one student seed"
    each = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    return f"{len(rows)} teachers, {each} seed{'s' * (sizes[-1] > 1)} each"


def summarise_units(values: Mapping[Unit, float], teachers: Mapping[Unit, str], is_share: bool) -> SeedSummary:
    """Return the mean with its interval over teachers, or over the seeds of one.

    sd and n are those of the teachers' means where there are several. Raises ValueError without a value.
    """
    rows = arrange(values, teachers)
    found = summarise(_average_rows(rows))
    error = _estimate_crossed(rows)
    if error is not None:
        found = replace(found, low=found.mean - error.margin, high=found.mean + error.margin, notes={})
    return keep_inside(found) if is_share and 0 < found.mean < 1 else found


def compare_units(
    first: Mapping[Unit, float], second: Mapping[Unit, float], teachers: Mapping[Unit, str]
) -> UnitComparison:
    """Compare two methods, paired by teacher and seed, on units that both have."""
    rows_first, rows_second = arrange(first, teachers), arrange(second, teachers)
    result = compare_over_seeds(_average_rows(rows_first), _average_rows(rows_second))
    differences = {
        key: {seed: rows_second[key][seed] - value for seed, value in row.items()}
        for key, row in rows_first.items()
    }
    error = _estimate_crossed(differences)
    if error is None:
        plain = MeanError(result.sd / math.sqrt(result.n), result.n - 1) if result.sd else None
        return UnitComparison(result, plain, None)
    t = result.difference / error.se
    result = replace(
        result,
        low=result.difference - error.margin,
        high=result.difference + error.margin,
        t=t,
        p=float(2 * special.stdtr(error.df, -abs(t))),
        wilcoxon_p=None,
        notes={"wilcoxon_p": SHARED},
    )
    by_seed = np.mean([list(row.values()) for row in differences.values()], axis=0)
    return UnitComparison(result, error, summarise(by_seed.tolist()))


def _average_rows(rows: Mapping[str, Mapping[int, float]]) -> list[float]:
    """Return the mean of each teacher's seeds, or the seeds of the only teacher."""
    found = [list(row.values()) for row in rows.values()]
    return found[0] if len(found) == 1 else [float(np.mean(row)) for row in found]


def _estimate_crossed(rows: Mapping[str, Mapping[int, float]]) -> MeanError | None:
    """Return the error over teachers and seeds where all teachers share two seeds or more, and values vary."""
    first, *others = rows.values()
    if not others or len(first) < 2 or any(row.keys() != first.keys() for row in others):
        return None
    error = estimate_crossed_error([list(row.values()) for row in rows.values()])
    return error if error.se > 1e-12 else None
