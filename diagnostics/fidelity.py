"""Fidelity of a student to its teacher (Stanton et al. 2021, section 3).

Two models of equal accuracy can still disagree. Letters: N samples, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax

from diagnostics.statistics import Noted


@dataclass(frozen=True)
class Fidelity(Noted):
    """Agreement of two models; shares lie in [0, 1]. None where not defined, `notes` says why."""

    images: int
    agreement: float  # share of images on which both predict the same class
    kl: float  # mean KL(teacher || student) at temperature 1, in nats, 0 or more
    teacher_errors: int
    agreement_on_errors: float | None  # share of the teacher's errors that the student makes too, same class
    accuracy_change: list[float | None]  # C numbers in [-1, 1]: accuracy of the student minus the teacher's
    notes: dict[str, str]

    def list_lost_most(self, k: int) -> list[int]:
        """Return at most k classes whose accuracy fell, the largest fall first."""
        if k < 1:
            raise ValueError(f"k must be 1 or more, got {k}")
        lost = [(change, c) for c, change in enumerate(self.accuracy_change) if change and change < 0]
        return [c for _, c in sorted(lost)[:k]]


def check_predictions(logits: np.ndarray, labels: np.ndarray) -> None:
    """Raise ValueError unless logits are finite (N, C) and labels N in [0, C)."""
    if logits.ndim != 2 or len(logits) == 0:
        raise ValueError(f"logits must have shape (N, C) with N >= 1, got {logits.shape}")
    if labels.shape != (len(logits),) or labels.dtype.kind not in "iu":
        raise ValueError(f"labels must be {len(logits)} integers, got {labels.dtype} of shape {labels.shape}")
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(f"labels must lie in [0, {logits.shape[1]}), got {labels.min()} to {labels.max()}")
    if not np.isfinite(logits).all():
        raise ValueError("logits must be finite: find the images on which the model overflows")


def measure_fidelity(teacher_logits: np.ndarray, student_logits: np.ndarray, labels: np.ndarray) -> Fidelity:
    """Compare logits (N, C) of teacher and student on images with labels (N,).

    Raises:
        ValueError: shapes that do not agree, no image, labels out of range, logits that are not finite.
    """
    check_predictions(teacher_logits, labels)
    check_predictions(student_logits, labels)
    if teacher_logits.shape != student_logits.shape:
        shapes = f"{teacher_logits.shape} and {student_logits.shape}"
        raise ValueError(f"both models need the same classes, got {shapes}")

    teacher, student = teacher_logits.argmax(axis=1), student_logits.argmax(axis=1)  # (N,)
    wrong = teacher != labels
    log_p = log_softmax(teacher_logits.astype(np.float64), axis=1)  # (N, C)
    log_q = log_softmax(student_logits.astype(np.float64), axis=1)  # so that a tiny q never becomes log 0
    kl = (np.exp(log_p) * (log_p - log_q)).sum(axis=1).mean()

    classes = teacher_logits.shape[1]
    images = np.bincount(labels, minlength=classes)  # (C,)
    gained = np.bincount(labels, weights=(student == labels).astype(int) - (teacher == labels), minlength=classes)
    change = [float(g / n) if n else None for g, n in zip(gained, images, strict=True)]
    missing = [str(c) for c, value in enumerate(change) if value is None]
    notes = {}
    if not wrong.any():
        notes["agreement_on_errors"] = "The teacher makes no error on these images."
    if missing:
        notes["accuracy_change"] = f"No test image of class {', '.join(missing)}."
    return Fidelity(
        images=len(labels),
        agreement=float((teacher == student).mean()),
        kl=max(float(kl), 0.0),  # rounding can leave -1e-17 where the models are identical
        teacher_errors=int(wrong.sum()),
        agreement_on_errors=float((teacher == student)[wrong].mean()) if wrong.any() else None,
        accuracy_change=change,
        notes=notes,
    )
