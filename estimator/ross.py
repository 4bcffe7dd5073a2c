"""Mutual information of a variable and a class label (Ross 2014).

Letters: N samples, D dimension, k the neighbour that sets the scale.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial import cKDTree
from scipy.special import digamma

from estimator.kraskov import check_neighbours, count_closer, make_matrix, standardise


def estimate_ross(X: ArrayLike, labels: ArrayLike, *, k: int = 3, seed: int = 0) -> float:
    """Estimate I(X; label) in nats of X (N, D), or (N,), and labels (N,).

    For each sample, the distance to its k-th neighbour of the same class, and how many samples m of all
    classes are that close: I = psi(N) + psi(k) - <psi(N_class)> - <psi(m)> (Ross 2014). As
    in the paper and in scikit-learn, samples of a class with a single sample are left out of everything, N
    too, and k is smaller in a class of k samples or fewer. Distances are max-norms of columns scaled to
    deviation 1, with noise on repeated values, as in `estimate_ksg`. I cannot exceed the entropy of the labels;
    the estimate may by a little, and may be below 0 near independence: it is not clipped.

    Raises ValueError for shapes that do not fit, NaN or infinite numbers, k < 1, or no class with 2 samples.
    """
    check_neighbours(k)
    X, labels = make_matrix(X), np.asarray(labels)
    if labels.shape != (len(X),):
        raise ValueError(f"labels must be (N,) with N = {len(X)}, got {labels.shape}")
    classes, sizes = np.unique(labels, return_counts=True)
    keep = np.isin(labels, classes[sizes > 1])
    if not keep.any():
        raise ValueError("no class has 2 samples or more")
    X, labels = standardise(X[keep], np.random.default_rng(seed)), labels[keep]
    radius, k_used, class_size = (np.empty(len(X)) for _ in range(3))
    for label, size in zip(classes[sizes > 1], sizes[sizes > 1], strict=True):
        members = labels == label
        k_here = min(k, size - 1)
        inside = X[members]
        distances, _ = cKDTree(inside).query(inside, k=k_here + 1, p=np.inf, workers=-1)
        radius[members], k_used[members], class_size[members] = distances[:, -1], k_here, size
    # m counts the k-th neighbour and not the sample; strictly closer samples and the sample itself are as many.
    m = count_closer(X, radius)
    return float(digamma(len(X)) + (digamma(k_used) - digamma(class_size) - digamma(m)).mean())
