"""Accuracy on frequent and on rare classes.

Letters: n test images, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

PARTS = ("top1_many", "top1_medium", "top1_few")
UNEVEN = 2.0  # times as many training images of the most frequent class as of the rarest


def measure_by_frequency(
    labels: NDArray[np.integer], predictions: NDArray[np.integer], counts: Sequence[int]
) -> dict[str, float]:
    """Return the accuracy on each third of the classes, by how many training images they have.

    Empty for fewer than three classes, and for classes of nearly equal size. Where C is no multiple of three, the
    frequent third is the larger one.

    Args:
        labels: (n,).
        predictions: (n,) classes.
        counts: (C,) training images.
    """
    if len(counts) < len(PARTS) or max(counts) < UNEVEN * max(min(counts), 1):
        return {}
    order = np.argsort(-np.asarray(counts), kind="stable")
    right = predictions == labels
    members = {name: np.isin(labels, part) for name, part in zip(PARTS, np.array_split(order, 3), strict=True)}
    return {name: float(right[here].mean()) for name, here in members.items() if here.any()}
