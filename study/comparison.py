"""Comparison of two methods on the same seeds, and its sentences.

Numbers are shares in [0, 1]; differences are first - second; sentences speak of percent points.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from scipy import special

from diagnostics.comparison import apply_holm_correction
from diagnostics.plain import FLAT, WHERE_GIVEN
from diagnostics.seeds import compare_over_seeds, format_number, format_p, replace_hyphen
from diagnostics.statistics import SIGNIFICANCE, Noted

BySeed = Mapping[int, float]
UNBIASED = "unbiased"
NO_SEED = "No seed has a value of both."
WORDS = {"following": "cue following", "worst_group": "worst-group accuracy", "top1": "test accuracy"}
WORDS |= {name: f"{name} accuracy" for name in (UNBIASED, "clean", "aligned", "conflicting")}


@dataclass(frozen=True)
class Difference(Noted):
    """first - second over their common seeds, with 95 % t-interval and paired tests.

    Numbers are None without a common seed.
    """

    seeds: list[int]
    mean_first: float | None
    mean_second: float | None
    difference: float | None
    sd: float | None
    low: float | None
    high: float | None
    t: float | None
    p: float | None
    wilcoxon_p: float | None
    notes: dict[str, str]


@dataclass(frozen=True)
class Contrast:
    """Two methods at one point in one measure, with accuracies beside it.

    With `exceeds`, t and p of the result are those of `compute_above`.
    """

    point: Mapping[str, Any]
    label: str  # the point in words
    first: str
    second: str
    measure: str
    result: Difference = field(metadata=FLAT)
    beside: Mapping[str, Difference]
    caution: str | None
    remark: str = ""  # on methods whose stage 1 did not align, at the end of its sentence
    name: str | None = field(default=None, metadata=WHERE_GIVEN)  # of a stated hypothesis, as the next three
    margin: float | None = field(default=None, metadata=WHERE_GIVEN)
    exceeds: float | None = field(default=None, metadata=WHERE_GIVEN)
    decision: str | None = field(default=None, metadata=WHERE_GIVEN)
    sentence: str = ""
    holm_p: float | None = None


def compare_paired(first: BySeed, second: BySeed) -> Difference:
    """Compare two methods by paired t-test and 95 % t-interval over common seeds."""
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return Difference([], None, None, None, None, None, None, None, None, None, {"difference": NO_SEED})
    found = compare_over_seeds([second[seed] for seed in seeds], [first[seed] for seed in seeds])
    return Difference(
        seeds,
        found.mean_b,
        found.mean_a,
        found.difference,
        found.sd,
        found.low,
        found.high,
        found.t,
        found.p,
        found.wilcoxon_p,
        found.notes,
    )


def apply_holm(rows: Sequence[Contrast]) -> list[Contrast]:
    """Return the same rows with Holm's correction of their p over all of them."""
    adjusted = apply_holm_correction([row.result.p for row in rows])
    return [replace(row, holm_p=p) for row, p in zip(rows, adjusted, strict=True)]


def compute_above(result: Difference, threshold: float) -> Difference:
    """Return the difference with t and p of the one-sided test above a threshold.

    Both stay None where seeds show no spread. The signed-rank test, which is two-sided, is left out.
    """
    notes = {**result.notes, "wilcoxon_p": "The stated test is one-sided."}
    if result.difference is None or not result.sd:
        return replace(result, wilcoxon_p=None, notes=notes)
    n = len(result.seeds)
    t = (result.difference - threshold) / (result.sd / math.sqrt(n))
    return replace(result, t=t, p=float(special.stdtr(n - 1, -t)), wilcoxon_p=None, notes=notes)


def make_decision(row: Contrast) -> str:
    """Return the decision on a stated hypothesis, of a row with Holm's p.

    exceeds: "shown" where Holm's p is below 0.05, "contradicted" where the 95 % interval lies wholly below the
    threshold, else "not shown". margin: by the 95 % interval alone. "equivalent": it lies within +- margin (two
    one-sided tests, Schuirmann 1987, here at 2.5 % each). "lower" or "higher": it leaves 0 out. Both can hold: a
    difference that is there and small. Else "undecided".
    """
    low, high = row.result.low, row.result.high
    if row.exceeds is not None:
        if row.holm_p is not None and row.holm_p < SIGNIFICANCE:
            return "shown"
        return "contradicted" if high is not None and high < row.exceeds else "not shown"
    if low is None or high is None or row.margin is None:
        return "undecided"
    small = -row.margin < low and high < row.margin
    if low <= 0 <= high:
        return "equivalent" if small else "undecided"
    side = "higher" if low > 0 else "lower"
    return f"{side}, by less than the margin" if small else side


def describe_stated(row: Contrast) -> str:
    """Return the answer to a hypothesis, of a row with its decision."""
    if row.exceeds is not None:
        claim = f"above {replace_hyphen(f'{100 * row.exceeds:g}')} points"
    else:
        claim = f"equivalent within ±{100 * (row.margin or 0):g} points"
    return f"{row.name} ({claim}), {row.decision}: {describe_difference(row)}"


def describe_difference(row: Contrast) -> str:
    """Return the difference in words, with interval, seeds and Holm's p."""
    result = row.result
    text = f"{WORDS.get(row.measure, row.measure.replace('_', ' '))} of {row.first} minus that of {row.second}"
    if result.difference is None:
        return f"{text} is not known: no seed has a value of both{row.remark}"
    seeds = "1 seed" if len(result.seeds) == 1 else f"{len(result.seeds)} seeds"
    facts = [seeds]
    if result.low is not None and result.high is not None:
        facts = [f"95 % {format_points(result.low)} to {format_points(result.high)}", seeds]
    if row.holm_p is not None:
        facts.append(f"{format_p(row.holm_p)} by Holm")
    return f"{text} is {format_points(result.difference)} points ({', '.join(facts)}){row.remark}"


def describe_caution(row: Contrast, unbiased: Difference) -> str | None:
    """Return a warning where lower cue following comes with lower accuracy.

    A model that is bad at everything follows no cue either. Following counts as lower where its interval leaves 0
    out.
    """
    low, high, difference = row.result.low, row.result.high, unbiased.difference
    if row.measure != "following" or difference is None or low is None or high is None or low <= 0 <= high:
        return None
    sign = 1 if high < 0 else -1  # the first follows less, or the second
    if sign * difference >= 0:
        return None
    lower = row.first if sign > 0 else row.second
    return (
        f"{lower} follows the cue less, but its unbiased accuracy is lower too, by "
        f"{format_points(abs(difference))} points: lower following through lower accuracy is not mitigation"
    )


def format_points(share: float) -> str:
    """Return a share or a difference of shares in percent points, for a sentence."""
    return format_number(100 * share, 1)
