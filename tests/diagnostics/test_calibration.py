from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.metrics import brier_score_loss, log_loss

from diagnostics.calibration import measure_calibration


def draw_samples(seed: int, samples: int, classes: int, sharpness: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from their softmax: calibrated at sharpness 1, overconfident above."""
    generator = np.random.default_rng(seed)
    logits = 2 * generator.normal(size=(samples, classes))
    labels = np.array([generator.choice(classes, p=p) for p in softmax(logits, axis=1)])
    return (sharpness * logits).astype(np.float32), labels


def compute_naive_ece(scores: np.ndarray, hits: np.ndarray, bins: int) -> float:
    total = 0.0
    for i in range(bins):
        inside = [n for n, s in enumerate(scores) if i / bins < s <= (i + 1) / bins or (i == 0 and s == 0)]
        if inside:
            gap = sum(hits[n] for n in inside) / len(inside) - sum(scores[n] for n in inside) / len(inside)
            total += len(inside) / len(scores) * abs(gap)
    return total


@settings(deadline=None, max_examples=25, derandomize=True)
@given(seed=st.integers(0, 9999), samples=st.integers(1, 80), classes=st.integers(2, 6), bins=st.integers(1, 20))
def test_errors_match_a_naive_loop(seed: int, samples: int, classes: int, bins: int) -> None:
    logits, labels = draw_samples(seed, samples, classes, 1.5)
    p = softmax(logits.astype(np.float64), axis=1)
    result = measure_calibration(logits, labels, bins=bins)
    assert result.ece == pytest.approx(
        compute_naive_ece(p.max(axis=1), p.argmax(axis=1) == labels, bins), abs=1e-12
    )
    classwise = [compute_naive_ece(p[:, c], labels == c, bins) for c in range(classes)]
    assert result.classwise_ece == pytest.approx(np.mean(classwise), abs=1e-12)
    assert sum(b.count for b in result.reliability) == samples
    json.dumps(dataclasses.asdict(result), allow_nan=False)


def test_scores_match_scikit_learn() -> None:
    logits, labels = draw_samples(0, 300, 4)
    p = softmax(logits.astype(np.float64), axis=1)
    result = measure_calibration(logits, labels)
    one_vs_rest = sum(brier_score_loss(labels == c, p[:, c]) for c in range(4))
    assert result.brier == pytest.approx(one_vs_rest, rel=1e-12)
    assert result.nll == pytest.approx(log_loss(labels, p), rel=1e-12)


def test_reliability_by_hand() -> None:
    # Two classes at confidence 0.8 (logit gap log 4): three images, two right. ECE |2/3 - 0.8|.
    logits = np.array([[math.log(4), 0]] * 3)
    result = measure_calibration(logits, np.array([0, 0, 1]), bins=5)
    filled = [b for b in result.reliability if b.count]
    assert len(result.reliability) == 5
    assert len(filled) == 1
    assert filled[0].confidence == pytest.approx(0.8)
    assert filled[0].accuracy == pytest.approx(2 / 3)
    assert result.ece == pytest.approx(0.8 - 2 / 3)
    assert result.reliability[0].confidence is None
    assert "reliability" in result.notes


def test_edge_value_belongs_to_the_bin_below() -> None:
    result = measure_calibration(np.zeros((4, 2)), np.array([0, 1, 0, 1]), bins=4)  # confidence 0.5 exactly
    assert [b.count for b in result.reliability] == [0, 4, 0, 0]
    assert (result.ece, result.brier, result.nll) == (0.0, 0.5, pytest.approx(math.log(2)))


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_temperature_recovers_the_sharpness(sharpness: float) -> None:
    result = measure_calibration(*draw_samples(1, 4000, 5, sharpness), seed=3)
    assert result.scaling is not None
    assert result.scaling.temperature == pytest.approx(sharpness, rel=0.1)
    assert (result.scaling.fitted_images, result.scaling.reported_images) == (2000, 2000)
    assert result.scaling.nll_after <= result.scaling.nll_before + 1e-3
    if sharpness != 1.0:
        assert result.scaling.ece_after < result.scaling.ece_before / 2


def test_temperature_minimises_the_nll() -> None:
    logits, labels = draw_samples(2, 200, 3, 2.0)
    result = measure_calibration(np.repeat(logits, 2, axis=0), np.repeat(labels, 2), seed=0)
    assert result.scaling is not None
    t = result.scaling.temperature
    around = [log_loss(labels, softmax(logits.astype(float) / s, axis=1)) for s in (t * 0.7, t * 1.4)]
    assert result.scaling.nll_after < min(around)


def test_each_class_is_split_in_half() -> None:
    logits = np.random.default_rng(0).normal(size=(20, 20)) + 2 * np.eye(20)
    result = measure_calibration(
        np.repeat(logits, 2, axis=0), np.repeat(np.arange(20), 2)
    )  # two equal images a class
    assert result.scaling is not None
    assert result.scaling.nll_before == pytest.approx(result.nll, rel=1e-12)


def test_the_split_follows_the_seed_alone() -> None:
    logits, labels = draw_samples(5, 101, 3, 2.0)
    first, again, other = (measure_calibration(logits, labels, seed=s) for s in (0, 0, 1))
    assert first == again
    assert first.scaling != other.scaling
    assert first.ece == other.ece


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        (10 * np.eye(3)[[0, 1, 2, 0]], np.array([0, 1, 2, 0])),  # perfect: T -> 0
        (3000 * np.eye(3)[[0, 1, 2, 0]], np.array([0, 1, 2, 0])),  # perfect, and the NLL is 0 at any T
        (10 * np.eye(3)[[0, 1, 2, 0]], np.array([1, 2, 0, 1])),  # always wrong: T -> infinity
        (np.ones((4, 3)), np.array([0, 1, 2, 0])),  # the same for every T
        (np.array([[1.0, 0.0]]), np.array([0])),  # n = 1
    ],
)
def test_no_best_temperature(logits: np.ndarray, labels: np.ndarray) -> None:
    result = measure_calibration(logits, labels)
    assert result.scaling is None
    assert "scaling" in result.notes


def test_perfect_certain_model_scores_zero() -> None:
    result = measure_calibration(1000 * np.eye(4)[[0, 1, 2]], np.array([0, 1, 2]))
    assert (result.ece, result.classwise_ece, result.brier, result.nll) == (0.0, 0.0, 0.0, 0.0)


def test_wrong_input_is_named() -> None:
    with pytest.raises(ValueError, match="bins"):
        measure_calibration(np.zeros((2, 2)), np.array([0, 1]), bins=0)
    with pytest.raises(ValueError, match="lie in"):
        measure_calibration(np.zeros((2, 2)), np.array([0, 2]))
