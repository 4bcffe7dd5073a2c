"""Shape of a feature space: spread of classes, separation, dimensions.

Letters: N samples, D dimensions, C classes present; X features (N, D), y labels (N,); m_c the mean of class c
and m of all samples; Sw and Sb the within- and between-class scatter per sample, which add to the covariance:
Sw = 1/N sum_i (x_i - m_yi)(x_i - m_yi)^T, Sb = 1/N sum_i (m_yi - m)(m_yi - m)^T.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import pinvh, svdvals
from scipy.spatial.distance import pdist
from scipy.special import entr
from threadpoolctl import threadpool_limits

from diagnostics.statistics import Noted

FISHER_RTOL = 1e-6  # directions whose within-class variance is at most this share of the largest are left out
COLLAPSED_BELOW = 0.01  # a dimension is collapsed up to this share of the root mean square deviation of all
ROUNDING = 1e-24  # a mean square at most this share of the features' own is rounding, not spread

UNDEFINED = {
    "scatter_ratio": "Every sample sits on the mean of its class.",
    "fisher": "Every sample sits on the mean of its class.",
    "silhouette": "The samples drawn are all the same, of one class, or each of its own class.",
    "mean_separation": "There is only one class.",
    "min_separation": "There is only one class.",
    "effective_rank": "All features are the same.",
}


@dataclass(frozen=True)
class Geometry(Noted):
    """Scatter, separation and rank of features. None where not defined, `notes` says why."""

    samples: int
    dimensions: int
    classes: int  # those present
    within_scatter: float  # tr Sw, squared units of the features
    between_scatter: float  # tr Sb
    scatter_ratio: float | None  # tr Sb / tr Sw, higher: classes better apart
    fisher: float | None  # tr(Sw^+ Sb), free of units
    silhouette: float | None  # in [-1, 1], Euclidean
    compactness: float  # mean distance of unit-length features to their class mean, in [0, 2], lower: tighter
    mean_separation: float | None  # mean distance between the class means of unit-length features, in [0, 2]
    min_separation: float | None  # the same, of the closest two classes
    effective_rank: float | None  # in [1, min(N - 1, D)]
    collapsed_dimensions: int
    notes: dict[str, str]


@dataclass(frozen=True)
class _ClassScatter:
    """Features split into class means and residuals, in float64."""

    means: np.ndarray  # (C, D), m_c
    residuals: np.ndarray  # (N, D), x_i - m_yi
    offsets: np.ndarray  # (C, D), m_c - m
    shares: np.ndarray  # (C,), of the samples


def measure_geometry(X: np.ndarray, y: np.ndarray, seed: int = 0, silhouette_samples: int = 2000) -> Geometry:
    """Measure features X (N, D) with labels y (N,); `seed` is the silhouette's.

    Raises:
        ValueError: shapes that do not agree, no sample, features not finite, silhouette_samples below 2.
    """
    _check_features(X, y)
    scatter = _split_scatter(X, y)
    within, between = compute_scatter(X, y)
    compactness, separations = _measure_unit_sphere(X, y)
    has_spread = within > _compute_floor(X)
    result = Geometry(
        samples=X.shape[0],
        dimensions=X.shape[1],
        classes=len(np.unique(y)),
        within_scatter=within,
        between_scatter=between,
        scatter_ratio=between / within if has_spread else None,
        fisher=_compute_fisher(scatter) if has_spread else None,
        silhouette=_compute_silhouette(X, y, silhouette_samples, seed),
        compactness=compactness,
        mean_separation=float(separations.mean()) if separations.size else None,
        min_separation=float(separations.min()) if separations.size else None,
        effective_rank=compute_effective_rank(X),
        collapsed_dimensions=count_collapsed(X),
        notes={},
    )
    notes = {name: why for name, why in UNDEFINED.items() if getattr(result, name) is None}
    return replace(result, notes=notes)


def compute_scatter(X: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return the traces of Sw and Sb."""
    scatter = _split_scatter(X, y)
    within = float((scatter.residuals**2).sum(axis=1).mean())
    return within, float(scatter.shares @ (scatter.offsets**2).sum(axis=1))


def _compute_fisher(scatter: _ClassScatter) -> float:
    """Compute Fisher's criterion tr(Sw^+ Sb) (Fukunaga 1990, chapter 10).

    The only regularisation is that of the pseudo-inverse Sw^+: directions in which Sw has at most 1e-6 of its
    largest eigenvalue are left out, such as dead units and, where N - C < D, those that no sample spans.
    Compare equal N only.
    """
    Sw = scatter.residuals.T @ scatter.residuals / len(scatter.residuals)  # (D, D)
    products = (scatter.offsets @ pinvh(Sw, rtol=FISHER_RTOL)) * scatter.offsets  # (C, D)
    return float(scatter.shares @ products.sum(axis=1))


def _compute_silhouette(X: np.ndarray, y: np.ndarray, samples: int, seed: int) -> float | None:
    """Compute the mean silhouette (Rousseeuw 1987) of at most `samples` samples."""
    from sklearn.metrics import silhouette_score  # a second to import, for those who need it

    if samples < 2:
        raise ValueError(f"the silhouette needs 2 samples or more, got {samples}")
    if len(X) > samples:
        drawn = np.random.default_rng(seed).choice(len(X), samples, replace=False)
        X, y = X[drawn], y[drawn]
    if not 2 <= len(np.unique(y)) < len(y) or _is_constant(X):
        return None
    return float(silhouette_score(X.astype(np.float64), y))


def _measure_unit_sphere(X: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Measure features scaled to length 1 (a zero vector stays zero).

    Returns the mean distance of a sample to its class mean, and the C (C - 1) / 2 distances between means.
    """
    from sklearn.preprocessing import normalize

    scatter = _split_scatter(normalize(X.astype(np.float64)), y)
    return float(np.linalg.norm(scatter.residuals, axis=1).mean()), pdist(scatter.means)


def compute_effective_rank(X: np.ndarray) -> float | None:
    """Return exp of the singular values' entropy (Roy & Vetterli 2007).

    In [1, min(N - 1, D)]. X is centred first: a mean that all samples share would else count as one dominant
    dimension. None if X is constant.
    """
    if _is_constant(X):
        return None
    values = svdvals(X.astype(np.float64) - X.mean(axis=0, dtype=np.float64))
    return float(np.exp(entr(values / values.sum()).sum()))


def count_collapsed(X: np.ndarray) -> int:
    """Count dimensions of at most 1 % of the root mean square deviation."""
    if _is_constant(X):
        return int(X.shape[1])
    variances = X.var(axis=0, dtype=np.float64)
    return int((variances <= COLLAPSED_BELOW**2 * variances.mean()).sum())


@dataclass(frozen=True)
class LinearProbe(Noted):
    """A linear classifier on frozen features. None where not defined, `notes` says why."""

    accuracy: float | None  # on the test features, in [0, 1]
    iterations: int
    converged: bool
    notes: dict[str, str]


def fit_linear_probe(
    train_X: np.ndarray, train_y: np.ndarray, test_X: np.ndarray, test_y: np.ndarray, iterations: int = 100
) -> LinearProbe:
    """Test multinomial logistic regression fitted on frozen training features (N, D).

    scikit-learn's L-BFGS with its default L2 weight (C = 1), in float32 for speed, on features standardised
    by the training ones. `converged` is False where it stopped at `iterations`. A test class absent from
    training counts as errors.

    Raises:
        ValueError: shapes that do not agree, no sample, features that are not finite, fewer than one iteration.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    _check_features(train_X, train_y)
    _check_features(test_X, test_y)
    if train_X.shape[1] != test_X.shape[1]:
        raise ValueError(f"train and test need the same D, got {train_X.shape[1]} and {test_X.shape[1]}")
    if iterations < 1:
        raise ValueError(f"iterations must be 1 or more, got {iterations}")
    if len(np.unique(train_y)) < 2:
        return LinearProbe(None, 0, False, {"accuracy": "The training features are of a single class."})
    scaler = StandardScaler().fit(train_X.astype(np.float64))
    train, test = (scaler.transform(X.astype(np.float64)).astype(np.float32) for X in (train_X, test_X))
    # One thread: BLAS and OpenMP threads in turn wait for each other, slower by ten times on a busy machine.
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # reported by `converged`
        model = LogisticRegression(max_iter=iterations).fit(train, train_y)
    done = int(model.n_iter_.max())
    return LinearProbe(float(model.score(test, test_y)), done, done < iterations, {})


def map_by_tsne(X: np.ndarray, seed: int = 0, perplexity: float = 30.0) -> np.ndarray:
    """Map features (N, D >= 2) to points (N, 2) by t-SNE.

    PCA to 50 dimensions first, and as the start. For few samples the perplexity is lowered to (N - 1) / 3;
    features that are all the same stay on one point. One thread, so that a seed gives the same map whatever
    the number of cores.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    _check_features(X, np.zeros(len(X), dtype=np.int64))
    if X.shape[1] < 2:
        raise ValueError("t-SNE needs features of 2 dimensions or more")
    if _is_constant(X):
        return np.zeros((len(X), 2), dtype=np.float32)
    with threadpool_limits(limits=1):
        reduced = PCA(min(50, *X.shape), random_state=seed).fit_transform(X.astype(np.float64))
        plane = TSNE(init="pca", random_state=seed, perplexity=min(perplexity, (len(X) - 1) / 3))
        return np.asarray(plane.fit_transform(reduced))


def _check_features(X: np.ndarray, y: np.ndarray) -> None:
    if X.ndim != 2 or X.size == 0:
        raise ValueError(f"features must have shape (N, D) with N and D 1 or more, got {X.shape}")
    if y.shape != (len(X),):
        raise ValueError(f"labels must have shape ({len(X)},), one for each row of features, got {y.shape}")
    if not np.isfinite(X).all():
        raise ValueError("features must be finite: find the images on which the model overflows")


def _split_scatter(X: np.ndarray, y: np.ndarray) -> _ClassScatter:
    X = X.astype(np.float64)
    _, index, counts = np.unique(y, return_inverse=True, return_counts=True)
    by_class = X[np.argsort(index, kind="stable")]  # the rows of each class together
    means = np.add.reduceat(by_class, np.cumsum(counts) - counts, axis=0) / counts[:, None]  # (C, D)
    return _ClassScatter(means, X - means[index], means - X.mean(axis=0), counts / len(X))


def _compute_floor(X: np.ndarray) -> float:
    return ROUNDING * float((X.astype(np.float64) ** 2).sum(axis=1).mean())


def _is_constant(X: np.ndarray) -> bool:
    return bool(X.var(axis=0, dtype=np.float64).sum() <= _compute_floor(X))
