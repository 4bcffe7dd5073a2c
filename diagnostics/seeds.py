"""One number, or one difference, over seeds, and the sentence it allows.

S is the number of seeds. Values keep the unit they come in; only `describe_difference` asks for percent points.
A seed is the unit of replication here: the interval speaks of training again, not of other test images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import special

from diagnostics.statistics import CONFIDENCE, SIGNIFICANCE, Noted

WILCOXON_FROM = 6  # with fewer seeds, the smallest two-sided p, 2 / 2^S, cannot pass below 0.05
ROUNDING = 1e-12  # differences below this share of the largest value are rounding error, not spread

ONE_SEED = "One seed says nothing about the spread over seeds."
NO_SPREAD = "All seeds give the same value, which does not show how far off a further seed would be."


@dataclass(frozen=True)
class SeedSummary(Noted):
    """Mean over n seeds, standard deviation (n - 1) and 95 % interval of the mean, by t or by t of its logit."""

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None
    notes: dict[str, str]


@dataclass(frozen=True)
class SeedComparison(Noted):
    """B minus A over n shared seeds: mean, spread and 95 % t-interval, paired t and Wilcoxon two-sided p."""

    n: int
    mean_a: float
    mean_b: float
    difference: float
    sd: float | None
    low: float | None
    high: float | None
    t: float | None
    p: float | None
    wilcoxon_p: float | None
    notes: dict[str, str]


def summarise(values: Sequence[float]) -> SeedSummary:
    """Compute mean, standard deviation and t-interval of values (S,), one a seed.

    Raises ValueError when there are none or one is not finite.
    """
    array = _check_values(values, "values")
    return _summarise_array(array, scale=float(np.abs(array).max()))


def summarise_shares(shares: Sequence[float]) -> SeedSummary:
    """Summarise shares (S,) in [0, 1], with an interval that stays between 0 and 1.

    The t-interval is that of the mean's logit, whose standard error is the mean's over m (1 - m) (delta method):
    near the middle the plain t-interval, at the ends one that leans towards the inside.
    Raises ValueError where `summarise` would, or for a value outside [0, 1].
    """
    if min(shares, default=0) < 0 or max(shares, default=0) > 1:
        raise ValueError("shares lie between 0 and 1")
    return keep_inside(summarise(shares))


def keep_inside(found: SeedSummary) -> SeedSummary:
    """Return a summary of shares with its symmetric interval turned into that of the mean's logit."""
    if found.low is None or found.high is None:
        return found
    mean = found.mean
    margin = (found.high - found.low) / 2 / (mean * (1 - mean))
    low, high = special.expit(special.logit(mean) + np.array([-margin, margin]))
    return replace(found, low=float(low), high=float(high))


def compare_over_seeds(values_a: Sequence[float], values_b: Sequence[float]) -> SeedComparison:
    """Compute paired t-test and t-interval of B - A, (S,) each, same seeds.

    The Wilcoxon signed-rank p is exact, ties included, and given from 6 seeds on.
    Raises ValueError when the lengths differ or `summarise` would.
    """
    a, b = _check_values(values_a, "values_a"), _check_values(values_b, "values_b")
    if a.shape != b.shape:
        raise ValueError(f"values_a and values_b must hold the same seeds: got {len(a)} and {len(b)} values")
    scale = float(max(np.abs(a).max(), np.abs(b).max()))
    summary = _summarise_array(b - a, scale)
    notes = dict(summary.notes)
    t = p = wilcoxon_p = None
    if summary.sd:
        t = summary.mean / (summary.sd / math.sqrt(summary.n))
        p = float(2 * special.stdtr(summary.n - 1, -abs(t)))
    else:
        notes["t"] = notes["p"] = summary.notes["low"]
    if summary.n >= WILCOXON_FROM:
        wilcoxon_p = _compute_signed_rank_p(b - a, scale)
    else:
        notes["wilcoxon_p"] = f"Given from {WILCOXON_FROM} seeds on: with fewer it cannot pass below 0.05."
    return SeedComparison(
        n=summary.n,
        mean_a=float(a.mean()),
        mean_b=float(b.mean()),
        difference=summary.mean,
        sd=summary.sd,
        low=summary.low,
        high=summary.high,
        t=t,
        p=p,
        wilcoxon_p=wilcoxon_p,
        notes=notes,
    )


def describe_difference(
    name_a: str,
    name_b: str,
    difference_points: float,
    low: float | None,
    high: float | None,
    basis: tuple[int, Literal["seeds", "images"]],
    p: float | None = None,
    teachers: str = " of one teacher",
) -> str:
    """Describe B - A in percent points, over (5, "seeds") or the like; `teachers` is of which teachers' students.

    B is better or worse only where the interval leaves 0 out and p, where one is given, is below 0.05. Give the p
    that Holm's method corrected: the interval is of one comparison, and too narrow where few images decide.
    Raises ValueError for another basis, or when only one bound is None.
    """
    number, unit = basis
    if unit not in ("seeds", "images") or number < 1:
        raise ValueError(f'basis must be a number of 1 or more with "seeds" or "images", got {basis}')
    if (low is None) != (high is None):
        raise ValueError("low and high must both be given or both be None")
    no_difference = (
        f"no difference shown between {name_b} and {name_a}: {format_number(difference_points, 1)} points"
    )
    if low is None or high is None:
        source = f"one {unit[:-1]} gives" if number == 1 else f"these {number:,} {unit} give"
        return f"{no_difference}, and {source} no interval"
    place = f"over {number:,} student seeds{teachers}" if unit == "seeds" else f"over {number:,} test images"
    if low <= 0 <= high or (p is not None and p >= SIGNIFICANCE):
        reason = "" if low <= 0 <= high or p is None else f" but {format_p(p)} by Holm"
        return f"{no_difference}, 95 % {format_number(low, 1)} to {format_number(high, 1)}{reason}, {place}"
    sign, verdict = (1, "better") if low > 0 else (-1, "worse")
    least, most = sorted((sign * low, sign * high))
    interval = f"95 % {format_number(least, 1)} to {format_number(most, 1)}"
    size = format_number(sign * difference_points, 1)
    return f"{name_b} is {size} points {verdict} than {name_a}, {interval}, {place}"


def _check_values(values: Sequence[float], name: str) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"{name} must be one finite number a seed, and at least one")
    return array


def _summarise_array(values: np.ndarray, scale: float) -> SeedSummary:
    """Summarise values (S,), without spread that is rounding error of `scale`."""
    n, mean = len(values), float(values.mean())
    if n == 1:
        return SeedSummary(1, mean, None, None, None, dict.fromkeys(("sd", "low", "high"), ONE_SEED))
    sd = float(values.std(ddof=1))
    if sd <= ROUNDING * scale:
        return SeedSummary(n, mean, 0.0, None, None, dict.fromkeys(("low", "high"), NO_SPREAD))
    margin = float(special.stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * sd / math.sqrt(n)
    return SeedSummary(n, mean, sd, mean - margin, mean + margin, {})


def _compute_signed_rank_p(differences: np.ndarray, scale: float) -> float:
    """Compute the exact two-sided p of Wilcoxon's (1945) signed-rank test.

    Under the hypothesis each rank counts as positive with probability 1/2, so the distribution of their sum
    is built up one rank at a time; ranks are doubled to make mean ranks whole. (scipy.stats.wilcoxon is
    exact without ties only, and accuracies on a small test set differ by the same amount often.)
    """
    rounded = np.round(differences / scale, 12) if scale else differences
    rounded = rounded[rounded != 0]
    _, kinds, ties = np.unique(np.abs(rounded), return_inverse=True, return_counts=True)
    ranks = (2 * np.cumsum(ties) - ties + 1)[kinds]  # twice the mid-ranks; scipy.stats takes a second to import
    probabilities = np.zeros(ranks.sum() + 1)  # of each sum of positive ranks
    probabilities[0] = 1
    for rank in ranks:
        probabilities /= 2
        probabilities[rank:] += probabilities[:-rank].copy()
    positive = ranks[rounded > 0].sum()
    tail = min(probabilities[: positive + 1].sum(), probabilities[positive:].sum())
    return min(1.0, 2 * float(tail))


def format_number(value: float, places: int, sign: str = "") -> str:
    """Format a number with so many decimals and a typographic minus; 0 has no minus."""
    return replace_hyphen(f"{round(value, places) + 0.0:{sign}.{places}f}")  # + 0.0 turns -0.0 into 0.0


def format_p(p: float) -> str:
    """Format a p-value for a sentence."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def replace_hyphen(number: str) -> str:
    """Replace the hyphen of a number by a minus as wide as its plus."""
    return number.replace("-", "−")
