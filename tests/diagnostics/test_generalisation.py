from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss

from diagnostics.generalisation import NOT_RECORDED, measure_gap


def test_the_gap_is_that_of_scikit_learns_scores() -> None:
    rng = np.random.default_rng(0)
    labels, test_labels = rng.integers(0, 3, 50), np.arange(40) % 3
    train, test = (rng.normal(size=(n, 3)).astype(np.float32) for n in (50, 40))
    train[np.arange(50), labels] += 4  # learnt by heart
    found = measure_gap(train, labels, test, test_labels)

    def compute_expected(logits, truth):
        p = np.exp(logits.astype(float))
        return accuracy_score(truth, logits.argmax(1)), log_loss(truth, p / p.sum(1, keepdims=True))

    (top1, loss), (test_top1, test_loss) = compute_expected(train, labels), compute_expected(test, test_labels)
    assert (found.train_top1, found.test_top1) == (top1, test_top1) and found.images == 50
    assert found.top1_gap == pytest.approx(top1 - test_top1) and found.top1_gap > 0.3
    assert found.loss_gap == pytest.approx(test_loss - loss) and found.loss_gap > 0.3


def test_missing_training_images_give_a_note() -> None:
    logits, labels = np.eye(3, dtype=np.float32), np.arange(3)
    found = measure_gap(np.empty((0, 0), np.float32), labels, logits, labels)
    assert (found.test_top1, found.train_top1, found.top1_gap, found.loss_gap) == (1.0, None, None, None)
    assert found.notes["top1_gap"] == NOT_RECORDED
