"""How well a cue, or a label, can be read off frozen features by a linear probe.

Letters: N samples, D dimensions.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

MOST_SAMPLES = 10_000  # more would take minutes and move a linear probe little
ITERATIONS = 200


def balanced_probe(
    train_X: NDArray[np.floating],
    train_y: NDArray[np.integer],
    test_X: NDArray[np.floating],
    test_y: NDArray[np.integer],
    seed: int = 0,
) -> float | None:
    """Balanced test accuracy (mean recall over classes) of a logistic probe on standardised features (N, D).

    Tells how well a cue, or a label, can be read off the features; give it images whose cue and label are
    independent, or one is read off the other. Classes weigh alike in training. The seed draws MOST_SAMPLES of
    the training features where there are more. None where training has a single class.

    `geometry.linear_probe` asks another question, what a model's features hold of its own classes: plain accuracy,
    classes weighed as they are, float32 for speed and a word on convergence.
    """
    chosen = np.random.default_rng(seed).permutation(len(train_X))[:MOST_SAMPLES]
    X, y = train_X[chosen].astype(np.float64), train_y[chosen]
    if len(np.unique(y)) < 2:
        return None
    scaler = StandardScaler().fit(X)
    # One thread: BLAS and OpenMP threads in turn wait for each other, slower by ten times on a busy machine.
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # an accuracy needs no optimum to its last digit
        model = LogisticRegression(class_weight="balanced", max_iter=ITERATIONS).fit(scaler.transform(X), y)
        predictions = model.predict(scaler.transform(test_X.astype(np.float64)))
    return float(recall_score(test_y, predictions, labels=np.unique(test_y), average="macro"))
