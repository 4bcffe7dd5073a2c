"""Whether a model's confidence can be believed: calibration errors, proper scores, and temperature scaling.

Letters: N samples, C classes, T temperature. Probabilities are float64 softmax of the logits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from diagnostics.fidelity import check_predictions

LOG_T_BOUNDS = (np.log(0.01), np.log(100.0))  # a best temperature outside these is taken as not existing
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
class Calibration:
    """What `calibration` measures; lower is better throughout. None where not defined, `notes` says why."""

    images: int
    ece: float  # in [0, 1]
    classwise_ece: float  # in [0, 1]
    brier: float  # in [0, 2]
    nll: float  # nats
    reliability: list[ReliabilityBin]
    scaling: TemperatureFit | None
    notes: dict[str, str]


def calibration(logits: np.ndarray, labels: np.ndarray, seed: int = 0, bins: int = 15) -> Calibration:
    """Calibration of one model, over `bins` bins of equal width.

    Parameters
    ----------
    logits : (N, C) array, before softmax.
    labels : (N,) integers in [0, C).
    seed : of the split into two halves (equal shares of each class) for temperature scaling, 0 or more.

    - `ece`: sum over bins of (images in bin / N) |accuracy - mean confidence|, Guo et al. 2017, equation 3.
    - `classwise_ece`: the same for each class's own probability, mean over classes, Kull et al. 2019.
    - `brier`: mean over images of sum_c (p_c - 1[c is the label])^2.
    - `nll`: mean of -log p_label.
    - `scaling`: temperature scaling, Guo et al. 2017, section 4.2.

    Raises
    ------
    ValueError : shapes that do not agree, no image, labels out of range, logits not finite, bins below 1.
    """
    check_predictions(logits, labels)
    if bins < 1:
        raise ValueError(f"bins must be 1 or more, got {bins}")
    log_p = log_softmax(logits.astype(np.float64), axis=1)  # (N, C)
    p = np.exp(log_p)
    truth = np.eye(logits.shape[1])[labels]  # (N, C)
    reliability = reliability_diagram(p, labels, bins)
    scaling, reason = _fit_temperature(logits.astype(np.float64), labels, seed, bins)

    notes = {}
    if any(b.count == 0 for b in reliability):
        notes["reliability"] = "A bin without images has neither confidence nor accuracy."
    if reason:
        notes["scaling"] = reason
    return Calibration(
        images=len(labels),
        ece=expected_calibration_error(p, labels, bins),
        classwise_ece=_classwise_ece(p, truth, bins),
        brier=float(((p - truth) ** 2).sum(axis=1).mean()),
        nll=_nll(log_p, labels),
        reliability=reliability,
        scaling=scaling,
        notes=notes,
    )


def reliability_diagram(p: np.ndarray, labels: np.ndarray, bins: int) -> list[ReliabilityBin]:
    """The `bins` bars of a reliability diagram from probabilities p (N, C) and labels (N,)."""
    confidence, right = p.max(axis=1), p.argmax(axis=1) == labels  # (N,)
    bin_of = _bin_of(confidence, bins)
    counts = np.bincount(bin_of, minlength=bins).tolist()
    confidences = np.bincount(bin_of, weights=confidence, minlength=bins).tolist()
    rights = np.bincount(bin_of, weights=right, minlength=bins).tolist()
    return [
        ReliabilityBin(
            i / bins, (i + 1) / bins, n, confidences[i] / n if n else None, rights[i] / n if n else None
        )
        for i, n in enumerate(counts)
    ]


def expected_calibration_error(p: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """ECE in [0, 1] of probabilities p (N, C) against labels (N,), Guo et al. 2017, equation 3."""
    filled = [b for b in reliability_diagram(p, labels, bins) if b.count]
    gaps = [
        b.count * abs(b.accuracy - b.confidence)
        for b in filled
        if b.accuracy is not None and b.confidence is not None
    ]
    return sum(gaps) / len(labels)


def _bin_of(values: np.ndarray, bins: int) -> np.ndarray:
    """Index of the bin (i/bins, (i+1)/bins] that holds each value in [0, 1]; 0 itself goes to the first."""
    return np.searchsorted(np.arange(1, bins) / bins, values, side="left")


def _classwise_ece(p: np.ndarray, truth: np.ndarray, bins: int) -> float:
    # In a class and bin, count x |frequency - mean probability| is |sum of (truth - probability)|.
    samples, classes = p.shape
    cell = _bin_of(p, bins) + bins * np.arange(classes)  # (N, C), one cell a class and bin
    gaps = np.bincount(cell.ravel(), weights=(truth - p).ravel(), minlength=bins * classes)
    return float(np.abs(gaps).sum() / (samples * classes))


def _nll(log_p: np.ndarray, labels: np.ndarray) -> float:
    return float(-np.take_along_axis(log_p, labels[:, None], axis=1).mean())


def _fit_temperature(
    logits: np.ndarray, labels: np.ndarray, seed: int, bins: int
) -> tuple[TemperatureFit | None, str | None]:
    if len(labels) < 2:
        return None, "One image cannot be split into a half to fit and a half to report."
    # Every second image of a shuffled list sorted by class: equal halves with equal shares of each class.
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    fit, report = order[::2], order[1::2]

    def nll_at(log_t: float, half: np.ndarray) -> float:
        return _nll(log_softmax(logits[half] / np.exp(log_t), axis=1), labels[half])

    # The NLL is convex in 1/T, so it has one minimum in log T: inside the bounds, or at an end.
    found = minimize_scalar(nll_at, bounds=LOG_T_BOUNDS, args=(fit,), method="bounded")
    if not found.fun < min(nll_at(end, fit) for end in LOG_T_BOUNDS):
        return None, NO_TEMPERATURE
    after = log_softmax(logits[report] / np.exp(found.x), axis=1)
    before = log_softmax(logits[report], axis=1)
    return TemperatureFit(
        temperature=float(np.exp(found.x)),
        fitted_images=len(fit),
        reported_images=len(report),
        nll_before=_nll(before, labels[report]),
        nll_after=_nll(after, labels[report]),
        ece_before=expected_calibration_error(np.exp(before), labels[report], bins),
        ece_after=expected_calibration_error(np.exp(after), labels[report], bins),
    ), None
