from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from diagnostics import variance
from diagnostics.comparison import apply_holm_correction
from diagnostics.plain import to_plain
from diagnostics.variance import compare_variances, count_seeds_needed, find_smallest_p, simulate_power


def test_statistic_is_anova_of_median_distances() -> None:
    rng = np.random.default_rng(0)
    a, b = 0.7 + 0.01 * rng.normal(size=7), 0.6 + 0.03 * rng.normal(size=5)
    found = compare_variances(a, b)
    expected = stats.f_oneway(np.abs(a - np.median(a)), np.abs(b - np.median(b)))
    assert (found.statistic, found.p) == pytest.approx((expected.statistic, expected.pvalue))
    assert found.ratio == pytest.approx(b.std(ddof=1) / a.std(ddof=1)) and (found.n_a, found.n_b) == (7, 5)


def test_power_agrees_with_scipys_tests() -> None:
    """By scipy's test on draws of another seed; two shares of 600 and 4,000 draws differ by chance alone."""
    rng = np.random.default_rng(1)
    p = [stats.levene(rng.normal(size=15), 2 * rng.normal(size=15), center="median").pvalue for _ in range(600)]
    own, other = simulate_power(15, 2.0), np.mean(np.array(p) < 0.05)
    assert abs(own - other) < 4 * np.sqrt(own * (1 - own) * (1 / 600 + 1 / 4000))
    assert simulate_power(15, 1.0) == pytest.approx(0.05, abs=0.02)  # no difference: the level of the test


@pytest.mark.parametrize("ratio", [1.6, 2.0, 4.0])
def test_seeds_needed_are_the_fewest_possible(ratio) -> None:
    found = count_seeds_needed(ratio)
    assert simulate_power(found, ratio) >= variance.POWER > simulate_power(found - 1, ratio)

    def compute_f_power(seeds):  # of the two-sided F-test of normal values, which is the most powerful
        low, high = stats.f.ppf([0.025, 0.975], seeds - 1, seeds - 1)
        return stats.f.sf(high / ratio**2, seeds - 1, seeds - 1) + stats.f.cdf(
            low / ratio**2, seeds - 1, seeds - 1
        )

    least = next(seeds for seeds in range(2, 200) if compute_f_power(seeds) >= 0.8)
    assert least <= found <= 2 * least + 4


def test_ratio_and_inverse_need_equal_seeds() -> None:
    assert count_seeds_needed(0.5) == count_seeds_needed(2.0)
    assert count_seeds_needed(1.05) is None
    with pytest.raises(ValueError, match="above 0"):
        count_seeds_needed(0.0)


def test_what_is_not_tested_says_why() -> None:
    three = compare_variances([0.5, 0.6, 0.7], [0.5, 0.7, 0.8])
    assert three.ratio is not None and three.p is None and three.notes["statistic"] == variance.FEW
    assert three.smallest_p == pytest.approx(0.1161, abs=1e-4) and three.seeds_for_double > 10
    assert compare_variances([0.5], [0.5, 0.7]).notes["ratio"].startswith("One seed")
    same = compare_variances([0.5, 0.5, 0.5], [0.5, 0.6, 0.7])
    assert same.sd_a == 0 and same.p is None and "ratio" in same.notes


@pytest.mark.parametrize("other", [[0.1, 0.2, 0.1, 0.2], [0.5, 0.8, 0.5, 0.8]])
def test_equal_distances_are_not_tested(other: list[float]) -> None:
    """0 / 0 or a spread divided by 0; distances of 0.1 and 0.2 differ by rounding."""
    found = compare_variances([0.7, 0.8, 0.7, 0.8], other)
    assert (found.statistic, found.p) == (None, None) and found.notes["statistic"] == variance.EQUAL_DISTANCES
    assert apply_holm_correction([found.p, 0.01]) == [None, 0.01]
    json.dumps(to_plain(found), allow_nan=False)


@pytest.mark.parametrize(("n_a", "n_b"), [(3, 3), (5, 5), (3, 5)])
def test_no_values_have_a_smaller_p(n_a: int, n_b: int) -> None:
    rng, best = np.random.default_rng(0), 1.0
    for _ in range(200):
        a, b = rng.normal(size=n_a), 1e-6 * rng.normal(size=n_b)
        best = min(best, stats.levene(a, b, center="median").pvalue)
    extreme = np.array([0.0] + [1.0, -1.0] * (max(n_a, n_b) // 2))  # its distances are equal but for the median's
    reached = stats.levene(extreme, np.zeros(min(n_a, n_b)), center="median").pvalue
    assert find_smallest_p(n_a, n_b) == pytest.approx(reached) and best >= reached
    assert find_smallest_p(4, 5) == 0 and find_smallest_p(1, 5) is None
