"""Spread over seeds: Brown and Forsythe's (1974) test and its power.

S is the number of seeds of a method. The test is an analysis of variance of the absolute distances from each
method's median: W = (2S - 2) * sum of squares between / sum of squares within, F(1, 2S - 2) under no difference.
The plain F-test of two variances trusts normality, which accuracies near 100 % do not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from diagnostics.seeds import NO_SPREAD, ONE_SEED, ROUNDING
from diagnostics.statistics import SIGNIFICANCE, Noted

POWER = 0.8  # with which a number of seeds would find a ratio
GIVEN_RATIO = 2.0  # of standard deviations, for which the number of seeds is always given
MIN_SEEDS = 4  # of a method: with three of each the smallest possible p is 0.116
MAX_SEEDS = 200
DRAWS = 4000  # simulated pairs of methods a number of seeds: the power's standard error is 0.6 points
FEW = f"The test needs {MIN_SEEDS} seeds of each method: with 3 of each, p cannot fall below 0.116."
EQUAL_DISTANCES = "In each method all values are equally far from their median: W is divided by 0."


@dataclass(frozen=True)
class VarianceTest(Noted):
    """Standard deviations over seeds (n - 1) of A and B, B's as a multiple of A's, and the test that they differ.

    smallest_p: that these numbers of seeds allow, whatever the values.
    seeds_for_double: of each method, with which the test would find a ratio of two in 80 % of such studies at
        p < 0.05, if values were normal.
    """

    n_a: int
    n_b: int
    sd_a: float | None
    sd_b: float | None
    ratio: float | None
    statistic: float | None
    p: float | None
    smallest_p: float | None
    seeds_for_double: int
    notes: dict[str, str]


def compare_variances(values_a: Sequence[float], values_b: Sequence[float]) -> VarianceTest:
    """Compare the spread of two methods' values, one a seed, one or more each."""
    a, b = np.asarray(values_a, dtype=np.float64), np.asarray(values_b, dtype=np.float64)
    if not a.size or not b.size:
        raise ValueError("both methods need a value of one seed or more")
    double = count_seeds_needed(GIVEN_RATIO)
    assert double is not None  # a few dozen
    sd_a, sd_b = _compute_sd(a), _compute_sd(b)
    ratio = statistic = p = None
    notes = {}
    if not sd_a or not sd_b:
        reason = ONE_SEED if sd_a is None or sd_b is None else NO_SPREAD
        notes = dict.fromkeys(("ratio", "statistic"), reason)
    else:
        ratio = sd_b / sd_a
        if min(len(a), len(b)) < MIN_SEEDS:
            notes["statistic"] = FEW
        elif _is_constant(a) and _is_constant(b):
            notes["statistic"] = EQUAL_DISTANCES
        else:
            statistic, p = map(float, stats.levene(a, b, center="median"))
    smallest = find_smallest_p(len(a), len(b))
    if smallest is None:
        notes["smallest_p"] = ONE_SEED
    return VarianceTest(len(a), len(b), sd_a, sd_b, ratio, statistic, p, smallest, double, notes)


def find_smallest_p(n_a: int, n_b: int) -> float | None:
    """Return the lowest p that any values of so many seeds can have; None with one seed.

    W is largest where one method has no spread and the other's distances are all equal. An even number of values
    can all be equally far from their median, which makes W infinite. Of an odd number one is the median itself.
    """
    if min(n_a, n_b) < 2:
        return None
    if n_a % 2 == 0 or n_b % 2 == 0:
        return 0.0
    n, degrees = max(n_a, n_b), n_a + n_b - 2
    return float(stats.f.sf(degrees * n_a * n_b / (n_a + n_b) * (n - 1) / n, 1, degrees))


def _is_constant(values: NDArray[np.float64]) -> bool:
    """Return whether all values are equally far from their median, but for rounding."""
    return bool(np.ptp(np.abs(values - np.median(values))) <= ROUNDING * np.abs(values).max())


@cache
def count_seeds_needed(ratio: float) -> int | None:
    """Return the fewest seeds a method that find deviations of this ratio.

    By simulation of normal values from a fixed seed, bisected: the test has no closed form of its power. None
    where `MAX_SEEDS` are too few. Raises ValueError unless the ratio is above 0 and finite.
    """
    if not 0 < ratio < float("inf"):
        raise ValueError(f"a ratio of deviations must be above 0 and finite, got {ratio}")
    larger, low, high = max(ratio, 1 / ratio), MIN_SEEDS - 1, MIN_SEEDS
    while simulate_power(high, larger) < POWER:
        if high == MAX_SEEDS:
            return None
        low, high = high, min(2 * high, MAX_SEEDS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if simulate_power(middle, larger) >= POWER else (middle, high)
    return high


def simulate_power(seeds: int, ratio: float) -> float:
    """Return the share in 0..1 of simulated pairs that the test tells apart."""
    draws = np.random.default_rng(seeds).standard_normal((DRAWS, 2, seeds))
    draws[:, 1] *= ratio
    critical = stats.f.ppf(1 - SIGNIFICANCE, 1, 2 * seeds - 2)
    return float((_compute_statistics(draws) > critical).mean())


def _compute_statistics(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return W of each draw, (draws,), of values (draws, 2, S)."""
    seeds = values.shape[2]
    distances = np.abs(values - np.median(values, axis=2, keepdims=True))
    means = distances.mean(axis=2)  # (draws, 2)
    between = seeds * (means[:, 0] - means[:, 1]) ** 2 / 2
    within = ((distances - means[:, :, None]) ** 2).sum(axis=(1, 2))
    return np.asarray((2 * seeds - 2) * between / within)


def _compute_sd(values: NDArray[np.float64]) -> float | None:
    if len(values) < 2:
        return None
    sd = float(values.std(ddof=1))
    return 0.0 if sd <= ROUNDING * float(np.abs(values).max()) else sd
