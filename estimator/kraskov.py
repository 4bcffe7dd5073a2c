"""Mutual information of two continuous variables from nearest neighbours, "KSG".

Kraskov, Stoegbauer and Grassberger, Estimating mutual information, Physical Review E 69, 066138 (2004).

Letters: N samples, D dimension, k the neighbour that sets the scale.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree
from scipy.special import digamma

NOISE = 1e-10  # of a column's standard deviation, only where values repeat


def estimate_ksg(X: ArrayLike, Y: ArrayLike, *, k: int = 3, variant: int = 1, seed: int = 0) -> float:
    """Estimate I(X; Y) in nats of X (N, Dx) and Y (N, Dy), or (N,).

    `variant` 1 is Eq. 8, 2 is Eq. 9. Distances are max-norms. Each column is first scaled to mean 0 and standard
    deviation 1, which leaves I as it is and gives every column a say in the neighbourhoods. Columns in which a
    value repeats get noise of 1e-10 standard deviations from `seed`, because the formulas assume that ties do
    not happen; variables that are largely discrete stay out of the estimator's reach.

    Small k has less bias and more variance; 2 to 4 is the authors' advice. Variant 1 varies less, variant 2
    has less bias in many dimensions. Both fall short where I is large (none exceeds psi(N) - psi(k),
    about log(N / k)) or dimensions are many. The result may be below 0 near independence and is not clipped.

    Raises ValueError for shapes that do not fit, NaN or infinite numbers, k not in 1..N-1, or another variant.
    """
    check_neighbours(k)
    if variant not in (1, 2):
        raise ValueError(f"variant must be 1 or 2, got {variant}")
    X, Y = make_matrix(X), make_matrix(Y)
    n = len(X)
    if len(Y) != n or k >= n:
        raise ValueError(f"X and Y need the same number of samples, more than k = {k}: got {n} and {len(Y)}")
    rng = np.random.default_rng(seed)
    X, Y = standardise(X, rng), standardise(Y, rng)
    # Each sample is its own first neighbour at distance 0.
    Z = np.hstack([X, Y])  # (N, Dx + Dy)
    distances, neighbours = cKDTree(Z).query(Z, k=k + 1, p=np.inf, workers=-1)
    if variant == 1:
        radius = distances[:, -1]  # (N,), half of epsilon
        terms = digamma(count_closer(X, radius)) + digamma(count_closer(Y, radius))
        return float(digamma(k) + digamma(n) - terms.mean())
    terms = digamma(_count_in_rectangle(X, neighbours)) + digamma(_count_in_rectangle(Y, neighbours))
    return float(digamma(k) - 1 / k + digamma(n) - terms.mean())


def count_closer(X: NDArray[np.float64], radius: NDArray[np.float64]) -> NDArray[np.int64]:
    """Count n_x + 1 of Eq. 8: samples of X (N, D) strictly within radius (N,)."""
    inside = np.nextafter(radius, 0)
    return np.asarray(cKDTree(X).query_ball_point(X, inside, p=np.inf, return_length=True, workers=-1))


def _count_in_rectangle(X: NDArray[np.float64], neighbours: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count n_x of Eq. 9: samples within the k joint neighbours (N, k + 1)."""
    half_side = np.abs(X[neighbours] - X[:, None]).max(axis=(1, 2))  # (N,)
    counts = cKDTree(X).query_ball_point(X, half_side, p=np.inf, return_length=True, workers=-1)
    return np.asarray(counts - 1)


def make_matrix(X: ArrayLike) -> NDArray[np.float64]:
    """Make float64 (N, D) of (N, D) or (N,); ValueError for others or NaN."""
    X = np.asarray(X, dtype=np.float64)
    if X.ndim == 1:
        X = X[:, None]
    if X.ndim != 2 or X.shape[1] == 0:
        raise ValueError(f"samples must be (N,) or (N, D): flatten them first, got {X.shape}")
    if not np.isfinite(X).all():
        raise ValueError("samples hold NaN or infinite numbers: leave those rows out")
    return X


def standardise(X: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Standardise X (N, D), with noise on columns that repeat a value."""
    X = X - X[0]  # constant columns become exactly 0
    X -= X.mean(axis=0)
    deviation = X.std(axis=0)
    X /= np.where(deviation > 0, deviation, 1)
    repeats = (np.diff(np.sort(X, axis=0), axis=0) == 0).any(axis=0)  # (D,)
    return np.asarray(X + NOISE * repeats * rng.standard_normal(X.shape))


def check_neighbours(k: int) -> None:
    if k < 1:
        raise ValueError(f"k must be 1 or more, got {k}")
