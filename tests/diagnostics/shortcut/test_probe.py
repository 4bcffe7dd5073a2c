from __future__ import annotations

import numpy as np
import pytest

from diagnostics.shortcut.probe import fit_balanced_probe


def test_probe_weighs_classes_alike() -> None:
    rng = np.random.default_rng(0)
    y = (rng.random(3000) < 0.1).astype(int)
    X = rng.normal(size=(3000, 5))
    assert fit_balanced_probe(X[:1500], y[:1500], X[1500:], y[1500:]) == pytest.approx(0.5, abs=0.06)
    X[:, 2] += 2 * y  # the best threshold for classes that weigh alike is right for Phi(1) = 0.84 of either
    assert fit_balanced_probe(X[:1500], y[:1500], X[1500:], y[1500:]) == pytest.approx(0.84, abs=0.06)
    assert fit_balanced_probe(X[:1500], y[:1500] * 0, X[1500:], y[1500:]) is None
    train_X, train_y = np.array([[0.0], [1.0], [2.0]]), np.array([0, 1, 2])
    test_y = np.array([0, 0, 1, 3])  # answered 2, 0, 1 and 2: a class not trained, one not tested
    score = fit_balanced_probe(train_X, train_y, np.array([[3.0], [-1.0], [1.0], [3.0]]), test_y)
    assert score == pytest.approx((1 / 2 + 1 + 0) / 3)
