from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import special, stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from diagnostics.crossed import estimate_crossed_error

REPEATS = 1_500


def compute_coverage(samples: np.ndarray, truth: float) -> float:
    """Return how often the interval of samples (repeats, R, C) holds the truth."""
    return float(np.mean([abs(one.mean() - truth) <= estimate_crossed_error(one).margin for one in samples]))


def test_mean_squares_are_those_of_the_analysis_of_variance() -> None:
    values = np.random.default_rng(0).normal(size=(5, 1)) + np.random.default_rng(1).normal(size=(5, 6))
    values += np.random.default_rng(2).normal(size=(1, 6))
    row, column = np.indices(values.shape).reshape(2, -1)
    frame = pd.DataFrame({"y": values.ravel(), "r": row, "c": column})
    table = anova_lm(ols("y ~ C(r) + C(c)", frame).fit())
    rows, columns, rest = table["mean_sq"]
    found = estimate_crossed_error(values)
    variance = rows + columns - rest
    assert found.se == pytest.approx(np.sqrt(variance / 30))
    assert found.df == pytest.approx(variance**2 / (rows**2 / 4 + columns**2 / 5 + rest**2 / 20))


def test_a_factor_without_effect_leaves_the_other() -> None:
    by_seed = np.array([0.70, 0.74, 0.71])
    found = estimate_crossed_error(np.tile(by_seed, (4, 1)))  # a method without a teacher, beside four of them
    low, high = stats.t.interval(0.95, 2, by_seed.mean(), stats.sem(by_seed))
    assert (found.df, 2 * found.margin) == (2, pytest.approx(high - low))
    with pytest.raises(ValueError, match="two rows and two columns"):
        estimate_crossed_error([[1.0, 2.0]])


@pytest.mark.parametrize(("teachers", "seeds"), [(3, 2), (3, 3), (5, 2)])
@pytest.mark.parametrize(("sd_teacher", "sd_seed", "sd_rest"), [(1, 0, 1), (1, 1, 0.5), (0.1, 1, 0.1)])
def test_teacher_interval_covers(
    teachers: int, seeds: int, sd_teacher: float, sd_seed: float, sd_rest: float
) -> None:
    """At least 93.5 %: 95 % less 2.7 standard errors of the simulation. All teachers share their seeds."""
    rng = np.random.default_rng(0)
    samples = sd_teacher * rng.normal(size=(REPEATS, teachers, 1)) + sd_seed * rng.normal(size=(REPEATS, 1, seeds))
    samples = samples + sd_rest * rng.normal(size=(REPEATS, teachers, seeds))
    assert compute_coverage(samples, 0.0) >= 0.935


@pytest.mark.parametrize(("sd_seed", "seeds"), [(0.0, 3), (0.1, 3), (0.3, 3), (0.1, 8)])
def test_interval_over_seeds_and_images_covers(sd_seed: float, seeds: int) -> None:
    """Right or wrong of two methods on the same images, by a probit model: at least 92 %, as above."""
    rng, images, repeats = np.random.default_rng(1), 300, 600
    easy = 1 + rng.normal(size=(repeats, 1, images))
    gain = 0.1 + 0.3 * rng.normal(size=(repeats, 1, images)) + sd_seed * rng.normal(size=(repeats, seeds, 1))
    first, second = 0.5 * rng.normal(size=(2, repeats, seeds, images))
    samples = (easy + gain + second > 0).astype(float) - (easy + first > 0)
    variance = 1 + 0.5**2
    truth = special.ndtr(1.1 / np.sqrt(variance + 0.3**2 + sd_seed**2)) - special.ndtr(1 / np.sqrt(variance))
    assert compute_coverage(samples, truth) >= 0.92
