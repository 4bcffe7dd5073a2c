from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from CKA import compute_linear_cka, compute_rbf_cka, compute_rbf_cka_with_each

BOTH = pytest.mark.parametrize("cka", [compute_linear_cka, compute_rbf_cka])


def draw_normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draw_related(n: int, d1: int, d2: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    X = draw_normal(n, d1, seed=seed)
    return X, X @ draw_normal(d1, d2, seed=seed + 1) / d1**0.5 + 0.5 * draw_normal(n, d2, seed=seed + 2)


def compute_cka(K: np.ndarray, L: np.ndarray) -> float:
    """HSIC_1 as printed in the papers, on whole Gram matrices."""

    def compute_hsic(K: np.ndarray, L: np.ndarray) -> float:
        n = len(K)
        K, L = K - np.diag(np.diag(K)), L - np.diag(np.diag(L))
        one = np.ones(n)
        middle = (one @ K @ one) * (one @ L @ one) / ((n - 1) * (n - 2))
        return (np.trace(K @ L) + middle - 2 / (n - 2) * (one @ K @ L @ one)) / (n * (n - 3))

    return compute_hsic(K, L) / np.sqrt(compute_hsic(K, K) * compute_hsic(L, L))


def compute_rbf_gram(X: np.ndarray, fraction: float) -> np.ndarray:
    distance = np.sqrt(((X[:, None] - X[None]) ** 2).sum(-1))
    median = np.quantile(distance[np.triu_indices(len(X), 1)], 0.5, method="lower")
    return np.exp(-(distance**2) / (2 * (fraction * median) ** 2))


@pytest.mark.parametrize(("n", "d1", "d2"), [(4, 2, 3), (60, 5, 9), (40, 100, 1500)])
def test_linear_equals_gram_matrices(n: int, d1: int, d2: int) -> None:
    X, Y = draw_related(n, d1, d2)
    X = X + 3  # a shift must not matter
    expected = compute_cka((X @ X.T).numpy(), (Y @ Y.T).numpy())
    assert compute_linear_cka(X, Y).value == pytest.approx(expected, rel=1e-9)


def test_linear_keeps_its_digits_far_from_the_origin() -> None:
    X, Y = draw_related(200, 8, 8)
    assert compute_linear_cka(X + 1e5, Y - 1e5).value == pytest.approx(compute_linear_cka(X, Y).value, rel=1e-9)


@pytest.mark.parametrize("fraction", [0.3, 0.8, 2.0])
@pytest.mark.parametrize("block", [1, 7, 50, 512])
def test_rbf_equals_gram_matrices_for_any_block(fraction: float, block: int) -> None:
    X, Y = draw_related(50, 3, 6)
    expected = compute_cka(compute_rbf_gram(X.numpy(), fraction), compute_rbf_gram(Y.numpy(), fraction))
    assert compute_rbf_cka(X, Y, bandwidth=fraction, block=block).value == pytest.approx(expected, rel=1e-9)


@BOTH
@settings(deadline=None, max_examples=25, derandomize=True)
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-3, 1e3), dims=st.integers(1, 12))
def test_invariant_to_rotation_shift_and_scale(cka, seed: int, scale: float, dims: int) -> None:
    X, Y = draw_related(30, dims, 5, seed=seed)
    rotation, _ = torch.linalg.qr(draw_normal(dims, dims, seed=seed + 3))
    moved = scale * X @ rotation + scale * draw_normal(dims, seed=seed + 4)
    assert cka(moved, Y).value == pytest.approx(cka(X, Y).value, abs=1e-8)
    assert cka(Y, X).value == pytest.approx(cka(X, Y).value, abs=1e-12)
    assert cka(moved, X).value == pytest.approx(1, abs=1e-8)
    assert abs(cka(X, Y).value) <= 1 + 1e-12


@BOTH
def test_unrelated_features_score_near_zero_in_many_dimensions(cka) -> None:
    scores = [
        cka(draw_normal(200, 400, seed=seed), draw_normal(200, 400, seed=seed + 50)).value for seed in range(20)
    ]
    assert abs(np.mean(scores)) < 0.02  # the biased HSIC gives about 0.67 here
    assert min(scores) < 0 < max(scores)


@BOTH
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_any_float_dtype_is_computed_in_float64(cka, dtype: torch.dtype) -> None:
    X, Y = (features.to(dtype) for features in draw_related(40, 6, 6))
    assert cka(X, Y).value == cka(X.double(), Y.double()).value


@BOTH
def test_constant_features_are_undefined(cka) -> None:
    constant = torch.full((20, 4), 0.1, dtype=torch.float32)
    result = cka(constant, draw_normal(20, 3))
    assert result.value is None
    assert "X" in result.notes["value"] and "Y" not in result.notes["value"]
    assert "X and Y" in cka(constant, constant).notes["value"]


def test_one_sample_apart_from_the_others_is_undefined() -> None:
    X = torch.zeros(20, 3)
    X[7] = 1.7  # K is 0 off its diagonal, so HSIC_1 is 0 though X varies
    assert compute_linear_cka(X, draw_normal(20, 3)).value is None


@BOTH
def test_too_few_samples_and_broken_numbers_are_undefined(cka) -> None:
    for n in range(4):
        result = cka(draw_normal(n, 3), draw_normal(n, 2))
        assert (result.value, result.n) == (None, n) and "4 samples" in result.notes["value"]
    for broken in (float("nan"), float("inf")):
        X = draw_normal(10, 3)
        X[2, 1] = broken
        assert "NaN" in cka(X, draw_normal(10, 3)).notes["value"]


@BOTH
def test_result_turns_into_json(cka) -> None:
    result = cka(*draw_related(20, 3, 3))
    assert json.loads(json.dumps(dataclasses.asdict(result))) == {"value": result.value, "n": 20, "notes": {}}


@BOTH
def test_wrong_shapes_are_refused(cka) -> None:
    with pytest.raises(ValueError, match="flatten"):
        cka(draw_normal(8, 3, 2, 2), draw_normal(8, 3))
    with pytest.raises(ValueError, match="same samples"):
        cka(draw_normal(8, 3), draw_normal(9, 3))


def test_rbf_refuses_a_bandwidth_of_zero() -> None:
    with pytest.raises(ValueError, match="positive"):
        compute_rbf_cka(draw_normal(8, 3), draw_normal(8, 3), bandwidth=0)


def test_several_at_once_equal_one_by_one() -> None:
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(40, 5, generator=generator)
    others = [X[:, :2], torch.zeros(40, 3), torch.randn(40, 7, generator=generator)]  # the second has no scale
    together = compute_rbf_cka_with_each(X, others, block=16)
    assert together == [compute_rbf_cka(X, Y, block=16) for Y in others]
    assert together[1].value is None and "of Y is 0" in together[1].notes["value"]
    assert compute_rbf_cka_with_each(torch.zeros(40, 5), others, block=16)[0].value is None
    assert compute_rbf_cka_with_each(X, []) == []
