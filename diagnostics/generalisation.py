"""The gap between training and test images.

Letters: P training images without augmentation, N test images, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from diagnostics.statistics import Noted

NOT_RECORDED = "Its answers on training images are not in this recording: evaluate the run again."


@dataclass(frozen=True)
class Gap(Noted):
    """Accuracy in 0..1 and mean cross-entropy in nats on training and on test images, and their differences.

    Both differences are above 0 where test images are harder. None without training images.
    """

    images: int  # P
    train_top1: float | None
    test_top1: float
    top1_gap: float | None  # train - test
    train_loss: float | None
    test_loss: float
    loss_gap: float | None  # test - train
    notes: dict[str, str]


def measure_gap(
    train_logits: NDArray[np.float32],
    train_labels: NDArray[np.int64],
    test_logits: NDArray[np.float32],
    test_labels: NDArray[np.int64],
) -> Gap:
    """Compare logits (P, C), or none, with (N, C), by labels (P,) and (N,)."""
    test_top1, test_loss = _compute_scores(test_logits, test_labels)
    if not train_logits.size:
        notes = dict.fromkeys(("train_top1", "top1_gap", "train_loss", "loss_gap"), NOT_RECORDED)
        return Gap(0, None, test_top1, None, None, test_loss, None, notes)
    top1, loss = _compute_scores(train_logits, train_labels)
    return Gap(len(train_labels), top1, test_top1, top1 - test_top1, loss, test_loss, test_loss - loss, {})


def _compute_scores(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[float, float]:
    log_p = log_softmax(logits.astype(np.float64), axis=1)
    return float((logits.argmax(axis=1) == labels).mean()), float(-log_p[np.arange(len(labels)), labels].mean())
