"""Calibration of a model's confidence: errors, scores, temperature scaling.

Letters: N samples, C classes, T temperature. Probabilities are float64 softmax of the logits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from diagnostics.fidelity import check_predictions
from diagnostics.statistics import Noted

LOG_T_BOUNDS = (np.log(0.01), np.log(100.0))  # a best temperature outside these counts as none
NO_TEMPERATURE = (
    "No temperature from 0.01 to 100 minimises the NLL: fitted images all right, or no better than chance."
)


@dataclass(frozen=True)
class ReliabilityBin:
    """One bar of a reliability diagram: the images of confidence in (low, high], in the first bin also 0."""

    low: float
    high: float
    count: int
    confidence: float | None  # mean of the largest probability; None in an empty bin
    accuracy: float | None


@dataclass(frozen=True)
class TemperatureFit:
    """The temperature that minimises the NLL of one half of the images, and its effect on the other half."""

    temperature: float  # above 1: the model was overconfident
    fitted_images: int
    reported_images: int
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float


@dataclass(frozen=True)
class Calibration(Noted):
    """Calibration of one model, lower is better. None where not defined, `notes` says why."""

    images: int
    ece: float  # in [0, 1]; Guo et al. 2017, equation 3
    classwise_ece: float  # in [0, 1]: of each class's own probability, mean over classes; Kull et al. 2019
    brier: float  # in [0, 2]: mean over images of sum_c (p_c - 1[c is the label])^2
    nll: float  # nats
    reliability: list[ReliabilityBin]
    scaling: TemperatureFit | None  # Guo et al. 2017, section 4.2
    notes: dict[str, str]


def measure_calibration(logits: np.ndarray, labels: np.ndarray, seed: int = 0, bins: int = 15) -> Calibration:
    """Measure the calibration of one model over `bins` bins of equal width.

    Args:
        logits: (N, C), before softmax.
        labels: (N,) integers in [0, C).
        seed: of the split into two halves (equal shares of each class) for temperature scaling, 0 or more.

    Raises:
        ValueError: shapes that do not agree, no image, labels out of range, logits not finite, bins below 1.
    """
    check_predictions(logits, labels)
    if bins < 1:
        raise ValueError(f"bins must be 1 or more, got {bins}")
    log_p = log_softmax(logits.astype(np.float64), axis=1)  # (N, C)
    p = np.exp(log_p)
    truth = np.eye(logits.shape[1])[labels]  # (N, C)
    reliability = compute_reliability(p, labels, bins)
    scaling, reason = _fit_temperature(logits.astype(np.float64), labels, seed, bins)

    notes = {}
    if any(b.count == 0 for b in reliability):
        notes["reliability"] = "A bin without images has neither confidence nor accuracy."
    if reason:
        notes["scaling"] = reason
    return Calibration(
        images=len(labels),
        ece=compute_ece(p, labels, bins),
        classwise_ece=_compute_classwise_ece(p, truth, bins),
        brier=float(((p - truth) ** 2).sum(axis=1).mean()),
        nll=_compute_nll(log_p, labels),
        reliability=reliability,
        scaling=scaling,
        notes=notes,
    )


def compute_reliability(p: np.ndarray, labels: np.ndarray, bins: int) -> list[ReliabilityBin]:
    """Return a reliability diagram of probabilities p (N, C) and labels (N,)."""
    confidence, right = p.max(axis=1), p.argmax(axis=1) == labels  # (N,)
    places = _find_bins(confidence, bins)
    counts = np.bincount(places, minlength=bins).tolist()
    confidences = np.bincount(places, weights=confidence, minlength=bins).tolist()
    rights = np.bincount(places, weights=right, minlength=bins).tolist()
    return [
        ReliabilityBin(
            i / bins, (i + 1) / bins, n, confidences[i] / n if n else None, rights[i] / n if n else None
        )
        for i, n in enumerate(counts)
    ]


def compute_ece(p: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Return the ECE in [0, 1] of probabilities p (N, C) against labels (N,)."""
    gaps = [
        b.count * abs(b.accuracy - b.confidence)
        for b in compute_reliability(p, labels, bins)
        if b.accuracy is not None and b.confidence is not None
    ]
    return sum(gaps) / len(labels)


def _find_bins(values: np.ndarray, bins: int) -> np.ndarray:
    """Return the bin (i/bins, (i+1)/bins] of each value; 0 goes to the first."""
    return np.searchsorted(np.arange(1, bins) / bins, values, side="left")


def _compute_classwise_ece(p: np.ndarray, truth: np.ndarray, bins: int) -> float:
    # In a class and bin, count x |frequency - mean probability| is |sum of (truth - probability)|.
    samples, classes = p.shape
    cell = _find_bins(p, bins) + bins * np.arange(classes)  # (N, C), one cell a class and bin
    gaps = np.bincount(cell.ravel(), weights=(truth - p).ravel(), minlength=bins * classes)
    return float(np.abs(gaps).sum() / (samples * classes))


def _compute_nll(log_p: np.ndarray, labels: np.ndarray) -> float:
    return float(-np.take_along_axis(log_p, labels[:, None], axis=1).mean())


def _fit_temperature(
    logits: np.ndarray, labels: np.ndarray, seed: int, bins: int
) -> tuple[TemperatureFit | None, str | None]:
    """Return the fit, or None and the reason."""
    if len(labels) < 2:
        return None, "One image cannot be split into a half to fit and a half to report."
    # Every second image of a shuffled list sorted by class: equal halves with equal shares of each class.
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    fit, report = order[::2], order[1::2]

    def compute_fit_nll(log_t: float) -> float:
        return _compute_nll(log_softmax(logits[fit] / np.exp(log_t), axis=1), labels[fit])

    # The NLL is convex in 1/T, so it has one minimum in log T: inside the bounds, or at an end.
    found = minimize_scalar(compute_fit_nll, bounds=LOG_T_BOUNDS, method="bounded")
    if not found.fun < min(map(compute_fit_nll, LOG_T_BOUNDS)):
        return None, NO_TEMPERATURE
    before, after = (log_softmax(logits[report] / t, axis=1) for t in (1.0, np.exp(found.x)))
    return TemperatureFit(
        temperature=float(np.exp(found.x)),
        fitted_images=len(fit),
        reported_images=len(report),
        nll_before=_compute_nll(before, labels[report]),
        nll_after=_compute_nll(after, labels[report]),
        ece_before=compute_ece(np.exp(before), labels[report], bins),
        ece_after=compute_ece(np.exp(after), labels[report], bins),
    ), None
