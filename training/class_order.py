"""The order of a given teacher's classes, compared with that of the data.

Letters: N images, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

CONFIDENCE = 3.0  # standard errors by which another order must be better
SMALLEST_GAIN = 0.05  # of accuracy
NAMED = 8  # classes in a message


def find_class_order(answers: NDArray[np.int64], labels: NDArray[np.int64], num_classes: int) -> list[int] | None:
    """Return the class that each output of a teacher means, None where no other order is clearly better.

    The order is found on one half of the images (N,) and confirmed on the other by McNemar's statistic.
    """
    half = np.arange(len(labels)) % 2 == 0
    confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(confusion, (answers[half], labels[half]), 1)
    confusion = 2 * confusion + np.eye(num_classes, dtype=np.int64)  # ties, as of classes never answered, stay
    order = linear_sum_assignment(confusion, maximize=True)[1]
    others, right = order[answers[~half]] == labels[~half], answers[~half] == labels[~half]
    gained, lost = int((others & ~right).sum()), int((right & ~others).sum())
    is_clear = gained - lost > CONFIDENCE * max(1, gained + lost) ** 0.5
    return order.tolist() if is_clear and gained - lost > SMALLEST_GAIN * len(right) else None


def describe_order(order: Sequence[int], classes: Sequence[str]) -> str:
    """Return a sentence on the first classes of a teacher whose order is another."""
    more = ", ..." if len(order) > NAMED else ""
    theirs = ", ".join(classes[place] for place in order[:NAMED])
    return f"its outputs seem to be {theirs}{more}, but the data's classes are {', '.join(classes[:NAMED])}{more}"


def is_near_chance(top1: float, labels: NDArray[np.int64]) -> bool:
    """Return whether an accuracy is within two standard errors of always answering the largest class."""
    share = float(np.bincount(labels).max() / len(labels))
    return bool(top1 <= min(share + 2 * (share * (1 - share) / len(labels)) ** 0.5, (1 + share) / 2))
