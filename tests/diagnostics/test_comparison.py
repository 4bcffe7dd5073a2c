from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from diagnostics.comparison import (
    apply_holm_correction,
    compute_bootstrap_interval,
    compute_wilson_interval,
    find_detectable_difference,
)

random_values = settings(deadline=None, max_examples=50, derandomize=True)


@random_values
@given(st.integers(1, 10_000), st.floats(0, 1), st.floats(0.5, 0.99))
def test_wilson_agrees_with_statsmodels(n, share, level) -> None:
    successes = round(share * n)
    expected = proportion_confint(successes, n, alpha=1 - level, method="wilson")
    assert compute_wilson_interval(successes, n, level) == pytest.approx(expected, abs=1e-12)


def test_wilson_literal_and_ends() -> None:
    assert compute_wilson_interval(50, 100) == pytest.approx((0.40383, 0.59617), abs=1e-5)
    assert compute_wilson_interval(0, 1)[0] == 0 and compute_wilson_interval(1, 1)[1] == 1
    with pytest.raises(ValueError, match="between 0 and n"):
        compute_wilson_interval(3, 2)


def test_bootstrap_agrees_with_its_normal_approximation() -> None:
    b, c, n = 120, 180, 2000
    correct_a = np.repeat([True, False, True], [b, c, n - b - c])
    correct_b = np.repeat([False, True, True], [b, c, n - b - c])
    result = compute_bootstrap_interval(correct_a, correct_b, seed=0, resamples=50_000)
    delta, psi = (c - b) / n, (b + c) / n
    half_width = 1.959964 * math.sqrt((psi - delta**2) / n)
    assert result.difference == pytest.approx(0.03)
    assert (result.low, result.high) == pytest.approx((delta - half_width, delta + half_width), abs=5e-4)
    assert result == compute_bootstrap_interval(correct_a, correct_b, seed=0, resamples=50_000)
    narrower = compute_bootstrap_interval(correct_a, correct_b, seed=0, level=0.5)
    assert narrower.low > result.low and narrower.high < result.high


@pytest.mark.parametrize("correct_b", [[False], [True], [True, True]])
def test_bootstrap_without_variation_has_no_interval(correct_b) -> None:
    correct_a = np.ones(len(correct_b), dtype=bool)
    result = compute_bootstrap_interval(correct_a, np.array(correct_b), seed=0)
    assert (result.low, result.high) == (None, None)
    assert set(result.notes) == {"low", "high"}


@random_values
@given(st.lists(st.floats(1e-300, 1), min_size=1, max_size=12))
def test_holm_agrees_with_statsmodels(p_values) -> None:
    expected = multipletests(p_values, method="holm")[1]
    assert apply_holm_correction(p_values) == pytest.approx(list(expected))
    in_logs = apply_holm_correction([math.log10(p) for p in p_values], log10=True)
    assert in_logs == pytest.approx([math.log10(p) for p in expected], abs=1e-9)


def test_holm_keeps_the_order_of_underflowed_p_values() -> None:
    adjusted = apply_holm_correction([-400.0, -500.0, -0.1], log10=True)
    assert adjusted == pytest.approx([-400 + math.log10(2), -500 + math.log10(3), -0.1])


def test_holm_leaves_undefined_tests_out() -> None:
    assert apply_holm_correction([0.01, None, 0.04]) == pytest.approx([0.02, None, 0.04])
    assert apply_holm_correction([]) == [] and apply_holm_correction([None]) == [None]
    for wrong in ([1.5], [float("nan")]):
        with pytest.raises(ValueError, match="0, 1"):
            apply_holm_correction(wrong)


def test_detectable_difference_is_found_with_its_power() -> None:
    n, psi, power = 2000, 0.15, 0.8
    delta = find_detectable_difference(n, psi, power=power).difference
    shares = [(psi - delta) / 2, (psi + delta) / 2, 1 - psi]
    drawn = np.random.default_rng(0).multinomial(n, shares, size=40_000)
    b, c = drawn[:, 0], drawn[:, 1]
    found = (b - c) ** 2 / (b + c) > 3.841459
    assert found.mean() == pytest.approx(power, abs=0.01)


@pytest.mark.parametrize(("n", "psi", "alpha", "power"), [(10_000, 0.2, 0.05, 0.8), (300, 0.5, 0.01, 0.3)])
def test_detectable_difference_solves_connors_equation(n, psi, alpha, power) -> None:
    delta = find_detectable_difference(n, psi, alpha, power).difference
    z_alpha = {0.05: 1.9599640, 0.01: 2.5758293}[alpha]
    z_power = {0.8: 0.8416212, 0.3: -0.5244005}[power]
    images = ((z_alpha * math.sqrt(psi) + z_power * math.sqrt(psi - delta**2)) / delta) ** 2
    assert images == pytest.approx(n, rel=1e-6)


@pytest.mark.parametrize(("n", "psi"), [(1, 1.0), (3, 1.0), (100, 0.01), (100, 0.0)])
def test_no_detectable_difference_is_said(n, psi) -> None:
    result = find_detectable_difference(n, psi)
    assert result.difference is None
    assert set(result.notes) == {"difference"}


def test_detectable_difference_refuses_power_below_alpha() -> None:
    with pytest.raises(ValueError, match="power above alpha"):
        find_detectable_difference(100, 0.2, alpha=0.05, power=0.04)
