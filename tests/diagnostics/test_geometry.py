from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group
from sklearn.metrics import silhouette_score

from diagnostics.geometry import (
    compute_effective_rank,
    compute_scatter,
    count_collapsed,
    fit_linear_probe,
    map_by_tsne,
    measure_geometry,
)

SQUARE = np.array([[4.0, 1], [4, -1], [0, 3], [0, 5]])  # two classes with means (4, 0) and (0, 4)
PAIRS = np.array([0, 0, 1, 1])


def draw_clusters(seed: int, samples: int = 120, dims: int = 6, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    y = generator.integers(0, classes, samples)
    means = 2 * generator.normal(size=(classes, dims))
    return means[y] + generator.normal(size=(samples, dims)), y


def compute_matrices(X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    Sw, Sb = (np.zeros((X.shape[1], X.shape[1])) for _ in range(2))
    for c in set(y.tolist()):
        mean = X[y == c].mean(axis=0)
        for x in X[y == c]:
            Sw += np.outer(x - mean, x - mean) / len(X)
            Sb += np.outer(mean - X.mean(axis=0), mean - X.mean(axis=0)) / len(X)
    return Sw, Sb


def test_by_hand() -> None:
    result = measure_geometry(SQUARE, PAIRS)
    assert (result.within_scatter, result.between_scatter, result.scatter_ratio) == (1.0, 8.0, 8.0)
    # Unit features: (4, +-1)/sqrt 17 lie 1/sqrt 17 from their mean (4/sqrt 17, 0); the others are the same (0, 1).
    assert result.compactness == pytest.approx(0.5 / np.sqrt(17))
    assert result.mean_separation == result.min_separation == pytest.approx(np.hypot(4 / np.sqrt(17), 1))
    assert (result.samples, result.dimensions, result.classes, result.notes) == (4, 2, 2, {})


@settings(deadline=None, max_examples=30, derandomize=True)
@given(seed=st.integers(0, 9999), samples=st.integers(1, 50), dims=st.integers(1, 8), classes=st.integers(1, 6))
def test_scatters_add_up_to_the_variance(seed: int, samples: int, dims: int, classes: int) -> None:
    X, y = draw_clusters(seed, samples, dims, classes)
    within, between = compute_scatter(X, y)
    assert within + between == pytest.approx(X.var(axis=0).sum(), rel=1e-10, abs=1e-12)
    result = measure_geometry(X, y)
    missing = {name for name, value in dataclasses.asdict(result).items() if value is None}
    assert missing == set(result.notes)
    json.dumps(dataclasses.asdict(result), allow_nan=False)


def test_scatter_and_fisher_match_the_matrices() -> None:
    X, y = draw_clusters(0)
    Sw, Sb = compute_matrices(X, y)
    result = measure_geometry(X.astype(np.float64), y)
    assert (result.within_scatter, result.between_scatter) == (
        pytest.approx(np.trace(Sw)),
        pytest.approx(np.trace(Sb)),
    )
    assert result.fisher == pytest.approx(scipy.linalg.eigh(Sb, Sw, eigvals_only=True).sum(), rel=1e-9)


def test_fisher_ignores_units_and_dead_dimensions() -> None:
    X, y = draw_clusters(1)
    padded = np.hstack([1000 * X, np.full((len(X), 3), 0.1)])
    assert measure_geometry(padded, y).fisher == pytest.approx(measure_geometry(X, y).fisher, rel=1e-8)


def test_silhouette_equals_scikit_learns() -> None:
    X, y = draw_clusters(2, samples=300)
    assert measure_geometry(X, y).silhouette == pytest.approx(silhouette_score(X, y), abs=1e-12)
    first, again, other = (measure_geometry(X, y, seed=s, silhouette_samples=50).silhouette for s in (0, 0, 1))
    assert first == again != other
    assert first == pytest.approx(silhouette_score(X, y), abs=0.1)


@pytest.mark.parametrize("dims", [2, 3, 8])
def test_equal_singular_values_give_their_number(dims: int) -> None:
    X = np.vstack([np.eye(dims), -np.eye(dims)]) @ ortho_group.rvs(dims, random_state=0)
    assert compute_effective_rank(5 * X + 7) == pytest.approx(dims, rel=1e-9)


def test_effective_rank_of_known_singular_values() -> None:
    line = np.outer(np.arange(10.0), [1, 2, 3])
    assert compute_effective_rank(line) == pytest.approx(1.0, rel=1e-6)
    X = np.array([[3.0, 0], [-3, 0], [0, 1], [0, -1]])  # singular values in ratio 3 to 1
    assert compute_effective_rank(X) == pytest.approx(0.75**-0.75 * 0.25**-0.25)


def test_collapsed_dimensions_are_relative_to_the_others() -> None:
    X = np.random.default_rng(0).normal(size=(500, 6)) * [1, 1, 1, 1, 0.001, 0]
    assert count_collapsed(X) == count_collapsed(1e-6 * X) == 2


def test_constant_features() -> None:
    result = measure_geometry(np.full((6, 4), 0.1, dtype=np.float32), np.array([0, 0, 0, 1, 1, 2]))
    assert set(result.notes) == {"scatter_ratio", "fisher", "silhouette", "effective_rank"}
    assert result.collapsed_dimensions == 4
    assert (result.mean_separation, result.compactness) == (pytest.approx(0), pytest.approx(0))


def test_one_sample_and_collapse_onto_class_means() -> None:
    one = measure_geometry(np.array([[1.0, 2.0]]), np.array([3]))
    assert {"scatter_ratio", "fisher", "silhouette", "mean_separation", "effective_rank"} <= set(one.notes)
    collapsed = measure_geometry(np.repeat(SQUARE[[0, 2]], 3, axis=0) / 3, np.repeat([0, 1], 3))
    assert collapsed.fisher is None
    assert collapsed.silhouette == pytest.approx(1.0)


def test_linear_probe_separates_clusters_and_reports_convergence() -> None:
    X, y = draw_clusters(3, samples=400)
    probe = fit_linear_probe(X[:200], y[:200], X[200:], y[200:])
    assert probe.accuracy is not None
    assert probe.accuracy > 0.85
    assert probe.converged
    stopped = fit_linear_probe(X[:200], y[:200], X[200:], y[200:], iterations=1)
    assert (stopped.converged, stopped.iterations) == (False, 1)


def test_linear_probe_on_unseen_and_single_classes() -> None:
    X, y = draw_clusters(3, samples=400)
    unseen = fit_linear_probe(X[:200], y[:200], X[200:], np.full(200, 9))
    assert unseen.accuracy == 0.0
    single = fit_linear_probe(X[:9], np.zeros(9, dtype=np.int64), X, y)
    assert single.accuracy is None
    assert "accuracy" in single.notes


def test_tsne_keeps_clusters_together_and_repeats() -> None:
    y = np.repeat([0, 1], 60)
    X = np.random.default_rng(0).normal(size=(120, 60)) + 20 * y[:, None]
    plane = map_by_tsne(X, seed=1)
    assert plane.shape == (120, 2)
    assert silhouette_score(plane, y) > 0.5
    assert np.array_equal(plane, map_by_tsne(X, seed=1))


@pytest.mark.parametrize("samples", [1, 2, 5])
def test_tsne_of_few_or_equal_samples_is_finite(samples: int) -> None:
    X = np.random.default_rng(0).normal(size=(samples, 3))
    assert np.isfinite(map_by_tsne(X)).all()
    assert np.array_equal(map_by_tsne(np.ones((samples, 3))), np.zeros((samples, 2)))


def test_wrong_input_is_named() -> None:
    with pytest.raises(ValueError, match="labels"):
        measure_geometry(SQUARE, PAIRS[:3])
    with pytest.raises(ValueError, match="shape"):
        measure_geometry(SQUARE[0], PAIRS)
    with pytest.raises(ValueError, match="finite"):
        measure_geometry(SQUARE * np.nan, PAIRS)
    with pytest.raises(ValueError, match="2 samples"):
        measure_geometry(SQUARE, PAIRS, silhouette_samples=1)
    with pytest.raises(ValueError, match="same D"):
        fit_linear_probe(SQUARE, PAIRS, SQUARE[:, :1], PAIRS)
    with pytest.raises(ValueError, match="iterations"):
        fit_linear_probe(SQUARE, PAIRS, SQUARE, PAIRS, iterations=0)
    with pytest.raises(ValueError, match="2 dimensions"):
        map_by_tsne(SQUARE[:, :1])
