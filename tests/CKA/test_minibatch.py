from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from CKA import MinibatchCKA, SimilarityMatrix, linear_cka


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def in_batches(X_layers: list[torch.Tensor], Y_layers: list[torch.Tensor], m: int) -> SimilarityMatrix:
    cka = MinibatchCKA()
    for start in range(0, len(X_layers[0]), m):
        rows = slice(start, start + m)
        cka.update([layer[rows] for layer in X_layers], [layer[rows] for layer in Y_layers])
    return cka.value()


def test_one_batch_is_exact_linear_cka() -> None:
    X_layers = [normal(40, 3, seed=1), normal(40, 200, seed=2)]
    Y_layers = [X_layers[0] @ normal(3, 7) + 5, normal(40, 4, seed=3), X_layers[1][:, :90]]
    result = in_batches(X_layers, Y_layers, 40)
    expected = [[linear_cka(X, Y).value for Y in Y_layers] for X in X_layers]
    assert np.array(result.values) == pytest.approx(np.array(expected), abs=1e-12)
    assert (result.n, result.batches, result.notes) == (40, 1, {})


def test_within_one_percent_of_exact_on_ten_thousand_samples() -> None:
    X = normal(10_000, 512) @ normal(512, 512, seed=1) / 512**0.5
    Y_layers = [X + noise * normal(10_000, 512, seed=2) for noise in (0.3, 1.0)]
    values = in_batches([X], Y_layers, 256).values[0]
    for value, Y in zip(values, Y_layers, strict=True):
        assert value == pytest.approx(linear_cka(X, Y).value, rel=0.01)


def test_unrelated_layers_score_near_zero_and_equal_layers_one() -> None:
    X, Y = normal(2000, 64, seed=1), normal(2000, 64, seed=2)
    values = in_batches([X], [Y, X], 50).values[0]
    assert abs(values[0]) < 0.02
    assert values[1] == pytest.approx(1, abs=1e-12)


def test_unequal_batches_are_weighted_by_their_size() -> None:
    X, Y = normal(30, 4, seed=1), normal(30, 4, seed=2) + normal(30, 4, seed=1)

    def hsic(X: torch.Tensor, Y: torch.Tensor) -> float:
        K, L = ((A @ A.T).double().fill_diagonal_(0) for A in (X, Y))
        n = len(X)
        middle = K.sum() * L.sum() / ((n - 1) * (n - 2))
        return float((K * L).sum() + middle - 2 / (n - 2) * K.sum(0) @ L.sum(0)) / (n * (n - 3))

    def mean(X: torch.Tensor, Y: torch.Tensor) -> float:
        return 20 * hsic(X[:20], Y[:20]) + 10 * hsic(X[20:], Y[20:])

    expected = mean(X, Y) / (mean(X, X) * mean(Y, Y)) ** 0.5
    assert in_batches([X], [Y], 20).values[0][0] == pytest.approx(expected, rel=1e-5)


def test_a_tail_too_small_is_left_out_and_said() -> None:
    X, Y = normal(43, 4, seed=1), normal(43, 4, seed=2)
    result = in_batches([X], [Y], 20)
    assert result.values == in_batches([X[:40]], [Y[:40]], 20).values
    assert (result.n, result.batches) == (40, 2) and result.notes["n"].startswith("3 samples")


def test_undefined_layers_are_none_and_named_and_do_not_spoil_others() -> None:
    X, constant = normal(16, 4), torch.full((16, 4), 0.1)
    broken = X.clone()
    broken[0, 0] = float("nan")
    result = in_batches([X, constant], [X, broken], 8)
    assert result.values[0][0] == pytest.approx(1)
    assert [result.values[0][1], *result.values[1]] == [None, None, None]
    assert "X layers [1]" in result.notes["values"] and "Y layers [1]" in result.notes["values"]
    json.dumps(dataclasses.asdict(result), allow_nan=False)


def test_no_batch_and_only_tiny_batches() -> None:
    assert MinibatchCKA().value().values == [] and "No batch" in MinibatchCKA().value().notes["values"]
    result = in_batches([normal(6, 2)], [normal(6, 2)], 3)
    assert result.values == [[None]] and "4 samples" in result.notes["values"]


def test_wrong_batches_are_refused() -> None:
    cka = MinibatchCKA()
    with pytest.raises(ValueError, match="at least one layer"):
        cka.update([], [normal(8, 2)])
    with pytest.raises(ValueError, match="same samples"):
        cka.update([normal(8, 2)], [normal(7, 2)])
    cka.update([normal(8, 2)], [normal(8, 2)])
    with pytest.raises(ValueError, match="layers must stay"):
        cka.update([normal(8, 2)], [normal(8, 2), normal(8, 2)])
