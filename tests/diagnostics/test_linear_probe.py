"""Of diagnostics/linear_probe.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from diagnostics import linear_probe
from diagnostics.linear_probe import STRENGTHS, choose_held_out, fit_linear_classifier


def draw(count: int, dimensions: int = 5, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Features (count, D) of three classes around different means, and their labels."""
    rng = np.random.default_rng(count)
    y = np.arange(count) % 3
    means = np.random.default_rng(1).normal(size=(3, dimensions))
    return (means[y] + noise * rng.normal(size=(count, dimensions))).astype(np.float32), y


def minimise(X: np.ndarray, y: np.ndarray, strength: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Minimise mean cross-entropy + strength * |w|^2 / 2 by torch, in float64."""
    inputs, labels = torch.from_numpy(X).double(), torch.from_numpy(y)
    w = torch.zeros(3, X.shape[1], dtype=torch.float64, requires_grad=True)
    b = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([w, b], max_iter=500, line_search_fn="strong_wolfe", tolerance_grad=1e-10)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(inputs @ w.T + b, labels) + strength * w.square().sum() / 2
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]
    return w.detach(), b.detach()


def test_features_that_separate_classes_give_all_right() -> None:
    (X, y), (test_X, test_y) = draw(60, noise=0.01), draw(31, noise=0.01)
    found = fit_linear_classifier(X, y, test_X)
    assert np.array_equal(found.predictions, test_y) and found.converged
    assert (found.strength, found.held_out) == (
        STRENGTHS[0],
        [1.0] * len(STRENGTHS),
    )  # of equal ones the strongest


def test_answers_agree_with_the_minimum_of_the_stated_loss(monkeypatch) -> None:
    (X, y), (test_X, _) = draw(150, noise=1.5), draw(600, noise=1.5)
    mean, deviation = X.mean(axis=0), X.std(axis=0)
    for strength in (0.1, 1e-3):
        monkeypatch.setattr(linear_probe, "STRENGTHS", (strength,))
        w, b = minimise((X - mean) / deviation, y, strength)
        logits = torch.from_numpy((test_X - mean) / deviation).double() @ w.T + b
        best, second = logits.topk(2).values.T
        clear = (best - second > 0.01).numpy()  # the others may fall either way by rounding
        found = fit_linear_classifier(X, y, test_X)
        assert clear.sum() > 580 and np.array_equal(found.predictions[clear], logits.argmax(dim=1).numpy()[clear])


def test_the_strength_is_the_best_on_held_out_samples() -> None:
    X, y = draw(300, noise=3.0)
    held_out = choose_held_out(y, seed=0)
    mean, deviation = X[~held_out].mean(axis=0), X[~held_out].std(axis=0)
    expected = []
    for strength in STRENGTHS:
        w, b = minimise((X[~held_out] - mean) / deviation, y[~held_out], strength)
        logits = torch.from_numpy((X[held_out] - mean) / deviation).double() @ w.T + b
        expected.append((logits.argmax(dim=1).numpy() == y[held_out]).mean())
    found = fit_linear_classifier(X, y, X[:1])
    assert found.held_out == pytest.approx(expected, abs=2 / held_out.sum()) and len(set(found.held_out)) > 1
    assert found.strength == STRENGTHS[int(np.argmax(found.held_out))]


@pytest.mark.parametrize("counts", [(2, 3, 40), (5, 10, 7)])
def test_a_fifth_of_each_class_is_held_out(counts: tuple[int, ...]) -> None:
    y = np.random.default_rng(0).permutation(np.repeat(np.arange(3), counts))
    chosen = choose_held_out(y, seed=0)
    assert np.bincount(y[chosen], minlength=3).tolist() == [max(1, round(count / 5)) for count in counts]
    assert np.array_equal(chosen, choose_held_out(y, seed=0)) and not np.array_equal(chosen, choose_held_out(y, 1))
