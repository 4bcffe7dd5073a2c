"""Intervals, correction for many tests, and power of paired comparisons.

Shares, differences and rates are fractions in [0, 1] or [-1, 1], not percent; n is a number of images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from diagnostics.statistics import Noted, count_pairs


@dataclass(frozen=True)
class DifferenceInterval(Noted):
    """Accuracy of B minus that of A, and the bounds of its interval, which are None where it has none."""

    difference: float
    low: float | None
    high: float | None
    notes: dict[str, str]


@dataclass(frozen=True)
class DetectableDifference(Noted):
    """A difference in accuracy, above 0, or None where no difference would be found."""

    difference: float | None
    notes: dict[str, str]


def compute_wilson_interval(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Compute Wilson's (1927) score interval of a share, for n >= 1."""
    _check_fractions(level=level)
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"successes must lie between 0 and n, and n be 1 or more: got {successes} of {n}")
    from scipy import stats  # takes most of a second to import, which not every report needs

    interval = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def compute_bootstrap_interval(
    correct_a: ArrayLike, correct_b: ArrayLike, seed: int, resamples: int = 10_000, level: float = 0.95
) -> DifferenceInterval:
    """Compute the bootstrap interval of accuracy_b - accuracy_a (Efron 1979).

    correct_a, correct_b: bool (n,), as for `count_pairs`. Drawing n images with replacement makes the counts
    multinomial with the observed shares, so the counts are drawn, not the images. There is no interval where
    each draw must give the same difference: one image, or models that never disagree.
    """
    _check_fractions(level=level)
    if resamples < 1:
        raise ValueError(f"resamples must be 1 or more, got {resamples}")
    counts = count_pairs(correct_a, correct_b)
    n, difference = counts.n, (counts.c - counts.b) / counts.n
    if n in (counts.b, counts.c, counts.a + counts.d):
        reason = "Every image counts the same for the difference, so resampling cannot vary it."
        return DifferenceInterval(difference, None, None, {"low": reason, "high": reason})
    shares = np.array([counts.b, counts.c, counts.a + counts.d]) / n
    drawn = np.random.default_rng(seed).multinomial(n, shares, size=resamples)  # (resamples, 3)
    low, high = np.quantile((drawn[:, 1] - drawn[:, 0]) / n, [(1 - level) / 2, (1 + level) / 2])
    return DifferenceInterval(difference, float(low), float(high), {})


def apply_holm_correction(p_values: Sequence[float | None], log10: bool = False) -> list[float | None]:
    """Apply Holm's (1979) correction to p-values, in the order given.

    That is p_(i) times (m - i + 1), made monotone, at most 1. With `log10`, takes and gives log10 p, so that
    p-values too small for a float keep their order. A test that is not defined (None) stays None and does not
    count in m.
    """
    defined = [i for i, p in enumerate(p_values) if p is not None]
    values = np.array([p_values[i] for i in defined], dtype=np.float64)
    if not np.all((values <= 0) & np.isfinite(values) if log10 else (values >= 0) & (values <= 1)):
        raise ValueError("log10 p-values must be finite and 0 or less" if log10 else "p-values must lie in [0, 1]")
    order = np.argsort(values, kind="stable")
    hypotheses_left = np.arange(len(values), 0, -1)
    scaled = values[order] + np.log10(hypotheses_left) if log10 else values[order] * hypotheses_left
    monotone = np.minimum(np.maximum.accumulate(scaled), 0.0 if log10 else 1.0)
    adjusted: list[float | None] = [None] * len(p_values)
    for position, p in zip(order, monotone, strict=True):
        adjusted[defined[position]] = float(p)
    return adjusted


def find_detectable_difference(
    n: int, disagreement: float, alpha: float = 0.05, power: float = 0.8
) -> DetectableDifference:
    """Find the smallest |accuracy difference| that McNemar's test would find.

    disagreement psi in [0, 1]: the share of images right for exactly one model, (b + c) / n. Connor (1987)
    asks n = ((z_alpha sqrt(psi) + z_power sqrt(psi - delta^2)) / delta)^2 images for a difference delta and
    the test without continuity correction; this is that equation, quadratic in delta, solved for delta:
    sqrt(psi) (z_alpha sqrt(n) + z_power sqrt(n + z_power^2 - z_alpha^2)) / (n + z_power^2).
    """
    _check_fractions(alpha=alpha, power=power)
    if n < 1 or not 0 <= disagreement <= 1 or power <= alpha:
        got = f"got {n}, {disagreement} and {power}"
        raise ValueError(f"n must be 1 or more, disagreement in [0, 1] and power above alpha: {got}")
    if disagreement == 0:
        reason = "The models never disagree, so no test can find a difference."
        return DetectableDifference(None, {"difference": reason})
    z_alpha, z_power = float(special.ndtri(1 - alpha / 2)), float(special.ndtri(power))
    left = n + z_power**2 - z_alpha**2
    root = z_alpha * math.sqrt(n) + z_power * math.sqrt(max(left, 0.0))
    difference = math.sqrt(disagreement) * root / (n + z_power**2)
    if left < 0 or difference > disagreement:
        reason = "Too few images disagree: even if all of them favoured one model, the power would be lower."
        return DetectableDifference(None, {"difference": reason})
    return DetectableDifference(difference, {})


def _check_fractions(**fractions: float) -> None:
    for name, value in fractions.items():
        if not 0 < value < 1:
            raise ValueError(f"{name} must lie between 0 and 1, got {value}")
