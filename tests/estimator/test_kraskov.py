from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import digamma
from sklearn.feature_selection import mutual_info_regression

from estimator import estimate_ksg


def draw_gaussians(rho: float, dims: int, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    X, noise = np.random.default_rng(seed).standard_normal((2, n, dims))
    return X, rho * X + math.sqrt(1 - rho**2) * noise


def compute_naive_ksg(X: np.ndarray, Y: np.ndarray, k: int, variant: int) -> float:
    """Eqs. 8 and 9 sample by sample, on columns of deviation 1."""
    X, Y = (Z / Z.std(axis=0) for Z in (X, Y))
    n, total = len(X), 0.0
    for i in range(n):
        others = np.arange(n) != i
        dx = np.abs(X[others] - X[i]).max(axis=1)
        dy = np.abs(Y[others] - Y[i]).max(axis=1)
        nearest = np.argsort(np.maximum(dx, dy))[:k]
        if variant == 1:
            half = np.maximum(dx, dy)[nearest[-1]]
            total += digamma(np.sum(dx < half) + 1) + digamma(np.sum(dy < half) + 1)
        else:
            total += digamma(np.sum(dx <= dx[nearest].max())) + digamma(np.sum(dy <= dy[nearest].max()))
    return digamma(k) - (0 if variant == 1 else 1 / k) - total / n + digamma(n)


@pytest.mark.parametrize("variant", [1, 2])
@pytest.mark.parametrize("k", [1, 3, 7])
@pytest.mark.parametrize(("dx", "dy"), [(1, 1), (2, 3), (5, 1)])
def test_equals_the_equations_sample_by_sample(variant: int, k: int, dx: int, dy: int) -> None:
    rng = np.random.default_rng(dx + k)
    X = rng.standard_normal((150, dx)) * np.arange(1, dx + 1)
    Y = X[:, :1] + rng.standard_normal((150, dy))
    assert estimate_ksg(X, Y, k=k, variant=variant) == pytest.approx(
        compute_naive_ksg(X, Y, k, variant), abs=1e-10
    )


# n = 3,000, seed 0. The tolerance is the estimator's own error: spread in few dimensions, and in 5 dimensions
# mostly a shortfall that grows with the information (about a quarter of it at rho = 0.9).
@pytest.mark.parametrize("variant", [1, 2])
@pytest.mark.parametrize(
    ("rho", "dims", "tolerance"),
    [(0, 1, 0.03), (0, 2, 0.03), (0, 5, 0.03), (0.5, 1, 0.03), (0.5, 2, 0.04)]
    + [(0.5, 5, 0.2), (0.9, 1, 0.04), (0.9, 2, 0.05), (0.9, 5, 1.3)],
)
def test_gaussians_against_the_closed_form(variant: int, rho: float, dims: int, tolerance: float) -> None:
    closed = -dims / 2 * math.log(1 - rho**2)
    estimate = estimate_ksg(*draw_gaussians(rho, dims, 3000), variant=variant)
    assert estimate == pytest.approx(closed, abs=tolerance)
    if tolerance > 0.1:
        assert estimate < closed


def test_agrees_with_scikit_learn_in_one_dimension() -> None:
    X, Y = draw_gaussians(0.7, 1, 800)
    expected = mutual_info_regression(X, Y[:, 0], n_neighbors=3, random_state=0)[0]
    assert estimate_ksg(X, Y[:, 0]) == pytest.approx(expected, abs=1e-6)


def test_identical_variables_reach_the_ceiling() -> None:
    X, _ = draw_gaussians(0, 2, 300)
    assert estimate_ksg(X, X, k=4) == pytest.approx(digamma(300) - digamma(4), abs=1e-12)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-3, 1e3), variant=st.sampled_from([1, 2]))
def test_symmetric_and_invariant_to_scale_and_order(seed: int, scale: float, variant: int) -> None:
    X, Y = draw_gaussians(0.6, 2, 80, seed=seed)
    value = estimate_ksg(X, Y, variant=variant)
    assert estimate_ksg(Y, X, variant=variant) == pytest.approx(value, abs=1e-12)
    assert estimate_ksg(X * [scale, 1] + scale, Y, variant=variant) == pytest.approx(value, abs=1e-9)
    order = np.random.default_rng(seed).permutation(80)
    assert estimate_ksg(X[order], Y[order], variant=variant) == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("variant", [1, 2])
def test_repeated_values_are_fine_and_repeatable(variant: int) -> None:
    rng = np.random.default_rng(0)
    X, Y = rng.integers(0, 3, (300, 2)), np.maximum(rng.standard_normal((300, 3)), 0)
    first = estimate_ksg(X, Y, variant=variant, seed=4)
    assert abs(first) < 0.15
    assert estimate_ksg(X, Y, variant=variant, seed=4) == first
    assert abs(estimate_ksg(np.full(300, 0.1), Y, variant=variant)) < 0.1  # a constant tells nothing


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k must be 1"),
        ({"k": 20}, "more than k"),
        ({"variant": 3}, "variant"),
    ]
    + [
        ({"Y": np.zeros(19)}, "same number"),
        ({"Y": np.full(20, np.nan)}, "NaN"),
        ({"X": np.zeros((20, 2, 2))}, "flatten"),
    ],
)
def test_wrong_input_is_refused(change: dict[str, object], message: str) -> None:
    arguments = {"X": np.arange(20.0), "Y": np.arange(20.0)} | change
    with pytest.raises(ValueError, match=message):
        estimate_ksg(**arguments)
