from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from CKA import MinibatchCKA, SimilarityMatrix, compute_linear_cka


def draw_normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def run_batches(X_layers: list[torch.Tensor], Y_layers: list[torch.Tensor], m: int) -> SimilarityMatrix:
    cka = MinibatchCKA()
    for start in range(0, len(X_layers[0]), m):
        rows = slice(start, start + m)
        cka.update([layer[rows] for layer in X_layers], [layer[rows] for layer in Y_layers])
    return cka.compute()


def test_one_batch_is_exact_linear_cka() -> None:
    X_layers = [draw_normal(40, 3, seed=1), draw_normal(40, 200, seed=2)]
    Y_layers = [X_layers[0] @ draw_normal(3, 7) + 5, draw_normal(40, 4, seed=3), X_layers[1][:, :90]]
    result = run_batches(X_layers, Y_layers, 40)
    expected = [[compute_linear_cka(X, Y).value for Y in Y_layers] for X in X_layers]
    assert np.array(result.values) == pytest.approx(np.array(expected), abs=1e-12)
    assert (result.n, result.batches, result.notes) == (40, 1, {})


def test_many_samples_come_within_one_percent() -> None:
    X = draw_normal(10_000, 512) @ draw_normal(512, 512, seed=1) / 512**0.5
    Y_layers = [X + noise * draw_normal(10_000, 512, seed=2) for noise in (0.3, 1.0)]
    values = run_batches([X], Y_layers, 256).values[0]
    for value, Y in zip(values, Y_layers, strict=True):
        assert value == pytest.approx(compute_linear_cka(X, Y).value, rel=0.01)


def test_unrelated_layers_score_zero_equal_layers_one() -> None:
    X, Y = draw_normal(2000, 64, seed=1), draw_normal(2000, 64, seed=2)
    values = run_batches([X], [Y, X], 50).values[0]
    assert abs(values[0]) < 0.02
    assert values[1] == pytest.approx(1, abs=1e-12)


def test_unequal_batches_are_weighted_by_their_size() -> None:
    X, Y = draw_normal(30, 4, seed=1), draw_normal(30, 4, seed=2) + draw_normal(30, 4, seed=1)

    def compute_hsic(X: torch.Tensor, Y: torch.Tensor) -> float:
        K, L = ((A @ A.T).double().fill_diagonal_(0) for A in (X, Y))
        n = len(X)
        middle = K.sum() * L.sum() / ((n - 1) * (n - 2))
        return float((K * L).sum() + middle - 2 / (n - 2) * K.sum(0) @ L.sum(0)) / (n * (n - 3))

    def average_hsic(X: torch.Tensor, Y: torch.Tensor) -> float:
        return 20 * compute_hsic(X[:20], Y[:20]) + 10 * compute_hsic(X[20:], Y[20:])

    expected = average_hsic(X, Y) / (average_hsic(X, X) * average_hsic(Y, Y)) ** 0.5
    assert run_batches([X], [Y], 20).values[0][0] == pytest.approx(expected, rel=1e-5)


def test_small_tail_is_left_out_and_noted() -> None:
    X, Y = draw_normal(43, 4, seed=1), draw_normal(43, 4, seed=2)
    result = run_batches([X], [Y], 20)
    assert result.values == run_batches([X[:40]], [Y[:40]], 20).values
    assert (result.n, result.batches) == (40, 2) and result.notes["n"].startswith("3 samples")


def test_undefined_layers_are_named_and_spoil_no_others() -> None:
    X, constant = draw_normal(16, 4), torch.full((16, 4), 0.1)
    broken = X.clone()
    broken[0, 0] = float("nan")
    result = run_batches([X, constant], [X, broken], 8)
    assert result.values[0][0] == pytest.approx(1)
    assert [result.values[0][1], *result.values[1]] == [None, None, None]
    assert "X layers [1]" in result.notes["values"] and "Y layers [1]" in result.notes["values"]
    json.dumps(dataclasses.asdict(result), allow_nan=False)


def test_no_batch_and_only_tiny_batches() -> None:
    assert MinibatchCKA().compute().values == [] and "No batch" in MinibatchCKA().compute().notes["values"]
    result = run_batches([draw_normal(6, 2)], [draw_normal(6, 2)], 3)
    assert result.values == [[None]] and "4 samples" in result.notes["values"]


def test_wrong_batches_are_refused() -> None:
    cka = MinibatchCKA()
    with pytest.raises(ValueError, match="at least one layer"):
        cka.update([], [draw_normal(8, 2)])
    with pytest.raises(ValueError, match="same samples"):
        cka.update([draw_normal(8, 2)], [draw_normal(7, 2)])
    cka.update([draw_normal(8, 2)], [draw_normal(8, 2)])
    with pytest.raises(ValueError, match="layers must stay"):
        cka.update([draw_normal(8, 2)], [draw_normal(8, 2), draw_normal(8, 2)])
