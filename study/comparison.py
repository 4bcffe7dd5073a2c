"""Comparison of two methods on the same seeds and teachers, and its sentences.

Numbers are shares in [0, 1]; differences are first - second; sentences speak of percent points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from scipy import special

from diagnostics.comparison import apply_holm_correction
from diagnostics.plain import FLAT, WHERE_GIVEN
from diagnostics.seeds import format_number, format_p, replace_hyphen
from diagnostics.statistics import CONFIDENCE, SIGNIFICANCE, Noted
from study.units import Unit, compare_units, describe_units

ByUnit = Mapping[Unit, float]
UNBIASED = "unbiased"
OPEN = ("not shown", "undecided")  # decisions that conclude nothing
NO_SEED = "No seed has a value of both."
WORDS = {"following": "cue following", "worst_group": "worst-group accuracy", "top1": "test accuracy"}
WORDS |= {name: f"{name} accuracy" for name in (UNBIASED, "clean", "aligned", "conflicting")}


@dataclass(frozen=True)
class Difference(Noted):
    """first - second over their common units, with t-interval at `level` and paired tests.

    Over teachers where there are several (`study.units`); seeds_low and seeds_high are then the interval over the
    student seeds of these teachers alone. Numbers are None without a common unit.
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
    over: str = ""  # what the interval is over: "5 student seeds of one teacher"
    se: float | None = None
    df: float | None = None
    seeds_low: float | None = None
    seeds_high: float | None = None
    level: float = CONFIDENCE


@dataclass(frozen=True)
class Contrast:
    """Two methods at one point in one measure, with accuracies beside it.

    With `exceeds`, t, p and interval of the result are those of `compute_above`.
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
    blocked_by: list[str] | None = field(default=None, metadata=WHERE_GIVEN)  # checks that its models fail
    sentence: str = ""
    holm_p: float | None = None
    below_holm_p: float | None = field(default=None, metadata=WHERE_GIVEN)  # of the opposite of `exceeds`


def compare_paired(first: ByUnit, second: ByUnit, teachers: Mapping[Unit, str]) -> Difference:
    """Compare two methods by paired t-test and 95 % t-interval over common units.

    teachers: a digest of each unit's teacher.
    """
    units = sorted(first.keys() & second.keys())
    if not units:
        return Difference([], None, None, None, None, None, None, None, None, None, {"difference": NO_SEED})
    own, other = ({unit: one[unit] for unit in units} for one in (first, second))
    compared = compare_units(other, own, teachers)
    found, error, by_seed = compared.result, compared.error, compared.by_seed
    return Difference(
        sorted({unit.seed for unit in units}),
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
        describe_units(dict.fromkeys(units), teachers),
        None if error is None else error.se,
        None if error is None else error.df,
        None if by_seed is None else by_seed.low,
        None if by_seed is None else by_seed.high,
    )


def apply_holm(rows: Sequence[Contrast]) -> list[Contrast]:
    """Return the same rows with Holm's correction of their p over all of them.

    Claims that exceed a threshold have the p of the opposite too, that of a difference below it, corrected alike.
    """
    tests = [row.result.p for row in rows]
    opposite = [None if row.exceeds is None else _compute_below(row.result) for row in rows]
    adjusted = zip(rows, apply_holm_correction(tests), apply_holm_correction(opposite), strict=True)
    return [replace(row, holm_p=p, below_holm_p=below) for row, p, below in adjusted]


def _compute_below(result: Difference) -> float | None:
    """Return the p of the opposite of `compute_above`."""
    return None if result.t is None else float(special.stdtr(len(result.seeds) - 1, result.t))


def compute_above(result: Difference, threshold: float) -> Difference:
    """Return the difference with t and p of the one-sided test above a threshold.

    The interval is at 90 %: each of its bounds is the one-sided bound at 95 %, which belongs to the test. t and p
    stay None where units show no spread. The signed-rank test, which is two-sided, is left out.
    """
    notes = {**result.notes, "wilcoxon_p": "The stated test is one-sided."}
    if result.difference is None or result.se is None or result.df is None:
        return replace(result, wilcoxon_p=None, notes=notes)
    t = (result.difference - threshold) / result.se
    margin = float(special.stdtrit(result.df, CONFIDENCE)) * result.se
    return replace(
        result,
        low=result.difference - margin,
        high=result.difference + margin,
        t=t,
        p=float(special.stdtr(result.df, -t)),
        wilcoxon_p=None,
        notes=notes,
        level=0.9,
    )


def find_side(row: Contrast) -> int:
    """Return 1 where the first is shown to be higher and -1 where lower, by Holm's p; else 0."""
    if row.exceeds is None:
        if not _is_significant(row.holm_p) or row.result.difference is None:
            return 0
        return 1 if row.result.difference > 0 else -1
    if row.exceeds >= 0 and _is_significant(row.holm_p):
        return 1
    return -1 if row.exceeds <= 0 and _is_significant(row.below_holm_p) else 0


def _is_significant(p: float | None) -> bool:
    return p is not None and p < SIGNIFICANCE


def decide(row: Contrast) -> str:
    """Return `make_decision`, or "blocked" where a failed check forbids its conclusion."""
    decision = make_decision(row)
    return "blocked" if row.blocked_by and decision not in OPEN else decision


def make_decision(row: Contrast) -> str:
    """Return the decision on a stated hypothesis, of a row with Holm's p.

    exceeds: "shown" where Holm's p is below 0.05, "contradicted" where Holm's p of the opposite is, else "not
    shown". margin: "lower" or "higher" where Holm's p is below 0.05; "equivalent" where the 95 % interval lies
    within +- margin (two one-sided tests, Schuirmann 1987, here at 2.5 % each). Both can hold: a difference that
    is there and small. Else "undecided".
    """
    low, high = row.result.low, row.result.high
    if row.exceeds is not None:
        if _is_significant(row.holm_p):
            return "shown"
        return "contradicted" if _is_significant(row.below_holm_p) else "not shown"
    if low is None or high is None or row.margin is None:
        return "undecided"
    small, side = -row.margin < low and high < row.margin, {1: "higher", -1: "lower", 0: ""}[find_side(row)]
    if not side:
        return "equivalent" if small else "undecided"
    return f"{side}, by less than the margin" if small else side


def describe_stated(row: Contrast) -> str:
    """Return the answer to a hypothesis, of a row with its decision."""
    if row.exceeds is not None:
        claim = f"above {replace_hyphen(f'{100 * row.exceeds:g}')} points"
    else:
        claim = f"equivalent within ±{100 * (row.margin or 0):g} points"
    blocked = f" by failed self-checks ({', '.join(row.blocked_by)})" if row.blocked_by else ""
    decision = f"{row.decision}{blocked}" if row.decision == "blocked" else row.decision
    return f"{row.name} ({claim}), {decision}: {describe_difference(row)}"


def describe_difference(row: Contrast) -> str:
    """Return the difference in words, with interval, seeds and Holm's p."""
    result = row.result
    text = f"{WORDS.get(row.measure, row.measure.replace('_', ' '))} of {row.first} minus that of {row.second}"
    if result.difference is None:
        return f"{text} is not known: no seed has a value of both{row.remark}"
    facts = [result.over]
    if result.low is not None and result.high is not None:
        level = f"{100 * result.level:.0f} %"
        facts = [f"{level} {format_points(result.low)} to {format_points(result.high)} over {result.over}"]
    if result.seeds_low is not None and result.seeds_high is not None:
        within = f"95 % {format_points(result.seeds_low)} to {format_points(result.seeds_high)}"
        facts.append(f"{within} over {len(result.seeds)} student seeds of these teachers")
    p = row.below_holm_p if row.decision == "contradicted" else row.holm_p
    if p is not None:
        facts.append(f"{format_p(p)} by Holm")
    return f"{text} is {format_points(result.difference)} points ({', '.join(facts)}){row.remark}"


def describe_caution(row: Contrast, unbiased: Difference) -> str | None:
    """Return a warning where lower cue following comes with lower accuracy.

    A model that is bad at everything follows no cue either. Holm's p of the row decides who follows less.
    """
    difference, sign = unbiased.difference, -find_side(row)  # 1 where the first follows less
    if row.measure != "following" or difference is None or sign * difference >= 0:
        return None
    lower = row.first if sign > 0 else row.second
    return (
        f"{lower} follows the cue less, but its unbiased accuracy is lower too, by "
        f"{format_points(abs(difference))} points: lower following through lower accuracy is not mitigation"
    )


def format_points(share: float) -> str:
    """Return a share or a difference of shares in percent points, for a sentence."""
    return format_number(100 * share, 1)
