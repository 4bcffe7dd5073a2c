"""A linear classifier on frozen features, its L2 strength chosen on held-out training images.

Letters: N training samples, M test samples, D dimensions.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

# weights w of |w|^2 / 2 beside the mean cross-entropy, strong to weak: the grid does not depend on N
STRENGTHS = (1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5)
FOLDS = 5  # a fifth of each class is held out
TOLERANCE = 1e-5  # of the gradient; scikit-learn's default, 1e-4, stops weak strengths early
ITERATIONS = 300

Features = NDArray[np.floating]
Labels = NDArray[np.integer]


@dataclass(frozen=True)
class FittedProbe:
    """Answers on the test features, and how the classifier came about."""

    predictions: NDArray[np.int64]  # (M,)
    strength: float
    held_out: list[float]  # accuracy on held-out images, by strength
    converged: bool  # False where the last fit stopped at ITERATIONS


def fit_linear_classifier(train_X: Features, train_y: Labels, test_X: Features, seed: int = 0) -> FittedProbe:
    """Fit multinomial logistic regression on features (N, D), answer for (M, D).

    Each strength is fitted on four fifths of the training features and measured on the rest; the best, of equal
    ones the strongest, is fitted on all of them. Features are standardised by those that are fitted on. L-BFGS in
    float32 on one thread, so that the answers do not depend on the number of cores. Classes need two samples.
    """
    from sklearn.exceptions import ConvergenceWarning

    held_out = choose_held_out(train_y, seed)
    # One thread also because BLAS and OpenMP threads in turn wait for each other on a busy machine.
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # reported by `converged`
        X, held_X = _standardise(train_X[~held_out], train_X[held_out])
        shares = []
        for strength in STRENGTHS:
            predictions = _make_classifier(strength, len(X)).fit(X, train_y[~held_out]).predict(held_X)
            shares.append(float((predictions == train_y[held_out]).mean()))
        strength = STRENGTHS[int(np.argmax(shares))]
        X, test_X = _standardise(train_X, test_X)
        model = _make_classifier(strength, len(X)).fit(X, train_y)
        predictions = model.predict(test_X)
    return FittedProbe(predictions, strength, shares, int(model.n_iter_.max()) < ITERATIONS)


def _make_classifier(strength: float, samples: int) -> LogisticRegression:
    """Return scikit-learn's classifier, whose C weighs the summed loss against |w|^2 / 2."""
    from sklearn.linear_model import LogisticRegression  # a second to import, for those who need it

    return LogisticRegression(C=1 / (strength * samples), tol=TOLERANCE, max_iter=ITERATIONS)


def choose_held_out(y: Labels, seed: int) -> NDArray[np.bool_]:
    """Draw a fifth of each class (N,), at least one sample and never all of them."""
    rng, chosen = np.random.default_rng(seed), np.zeros(len(y), dtype=bool)
    for label in np.unique(y):
        places = rng.permutation(np.flatnonzero(y == label))
        chosen[places[: max(1, round(len(places) / FOLDS))]] = True
    return chosen


def _standardise(train: Features, test: Features) -> tuple[Features, Features]:
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(train)
    return scaler.transform(train), scaler.transform(test)
