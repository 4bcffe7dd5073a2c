"""Ensembles of networks: mean probabilities and majority vote.

Letters: K members, N images, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

MIN_VOTERS = 3  # two members that disagree have no majority

Logits = NDArray[np.float32]  # (N, C)


def average_probabilities(members: Sequence[Logits]) -> NDArray[np.float64]:
    """Return the mean over members of their softmax, (N, C), rows summing to 1.

    Raises ValueError without members, or where these have different shapes.
    """
    _check_members(members, 1)
    total = np.zeros(members[0].shape, dtype=np.float64)
    for logits in members:
        total += softmax(logits.astype(np.float64), axis=1)
    return total / len(members)


def take_majority_vote(members: Sequence[Logits]) -> NDArray[np.int64]:
    """Return the class of most members, (N,), ties by mean probability.

    Raises ValueError with fewer than three members, or where these have different shapes.
    """
    _check_members(members, MIN_VOTERS)
    votes = np.zeros(members[0].shape, dtype=np.int64)
    rows = np.arange(len(votes))
    for logits in members:
        votes[rows, logits.argmax(axis=1)] += 1
    tied = votes == votes.max(axis=1, keepdims=True)
    return np.asarray(np.where(tied, average_probabilities(members), -1.0).argmax(axis=1))


def _check_members(members: Sequence[Logits], least: int) -> None:
    if len(members) < least:
        raise ValueError(f"an ensemble of this kind needs {least} or more members, got {len(members)}")
    shapes = {logits.shape for logits in members}
    if len(shapes) > 1:
        raise ValueError(f"members must answer on the same images and classes, got {sorted(shapes)}")
