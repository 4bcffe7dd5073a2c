from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import digamma
from scipy.stats import norm
from sklearn.feature_selection import mutual_info_classif

from estimator import estimate_ross


def draw_two_classes(n: int, gap: float, dims: int = 1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(n) % 2
    return np.random.default_rng(seed).standard_normal((n, dims)) + gap * labels[:, None], labels


@pytest.mark.parametrize("k", [1, 3, 6])
@pytest.mark.parametrize("gap", [0.8, 3.0])
def test_agrees_with_scikit_learn_in_one_dimension(k: int, gap: float) -> None:
    X, labels = draw_two_classes(600, gap)
    labels[labels == 1] += np.random.default_rng(1).integers(0, 3, 300)  # classes of unequal size
    labels[:3] = [10, 11, 11]  # one sample alone, and a pair smaller than k
    expected = mutual_info_classif(X, labels, n_neighbors=k, random_state=0)[0]
    # scikit-learn adds noise to all values, which can move single counts.
    assert estimate_ross(X, labels, k=k) == pytest.approx(expected, abs=1e-4)


def test_equals_the_definition_in_three_dimensions() -> None:
    X, labels = draw_two_classes(120, 1.0, dims=3)
    X, k, total = X / X.std(axis=0), 3, 0.0
    for i in range(120):
        distance = np.abs(X - X[i]).max(axis=1)
        others = np.arange(120) != i
        radius = np.sort(distance[others & (labels == labels[i])])[k - 1]
        total += digamma(60) + digamma(np.sum(distance[others] <= radius))
    assert estimate_ross(X, labels, k=k) == pytest.approx(digamma(120) + digamma(k) - total / 120, abs=1e-10)


def test_overlapping_gaussians_against_the_integral() -> None:
    def compute_integrand(x: float) -> float:
        p, q = norm.pdf(x), norm.pdf(x, loc=1.5)
        return 0.5 * p * math.log(2 * p / (p + q)) + 0.5 * q * math.log(2 * q / (p + q))

    X, labels = draw_two_classes(4000, 1.5)
    assert estimate_ross(X, labels) == pytest.approx(quad(compute_integrand, -8, 9)[0], abs=0.02)


@pytest.mark.parametrize("dims", [1, 5])
def test_separated_classes_give_the_entropy_of_the_labels(dims: int) -> None:
    X, labels = draw_two_classes(1000, 100.0, dims)
    assert estimate_ross(X, labels) == pytest.approx(digamma(1000) - digamma(500), abs=1e-12)


def test_unrelated_labels_give_about_zero() -> None:
    X, labels = draw_two_classes(3000, 0.0, dims=2)
    assert abs(estimate_ross(X, labels)) < 0.02
    assert estimate_ross(X, np.zeros(3000)) == 0  # one class


def test_text_labels_and_repeated_values() -> None:
    X, labels = draw_two_classes(200, 2.0)
    assert estimate_ross(X, np.array(["cat", "dog"])[labels]) == estimate_ross(X, labels)
    coarse = np.round(X)
    assert estimate_ross(coarse, labels, seed=3) == estimate_ross(coarse, labels, seed=3) > 0


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="labels must be"):
        estimate_ross(np.zeros((5, 2)), np.zeros(4))
    with pytest.raises(ValueError, match="no class has 2"):
        estimate_ross(np.zeros((5, 2)), np.arange(5))
