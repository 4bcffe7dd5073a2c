"""Distillation of softened logits (Hinton, Vinyals & Dean 2015).

Letters: B batch, C classes, T temperature.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy in nats of logits (B, C) for labels (B,) or shares of classes (B, C), mean over the batch.

    Args:
        weights: (B,) that multiply each image's term, which is still divided by B.
        smoothing: share in 0..1 of each label that is spread evenly over all classes (Szegedy et al., CVPR 2016).
    """
    if weights is None:
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)
    return (F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing) * weights).mean()


def softened_kl(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float, weights: Tensor | None = None
) -> Tensor:
    """T² · KL(softmax(teacher / T) ‖ softmax(student / T)), mean over the batch, in nats.

    The factor T² keeps the gradient's size independent of T (Hinton et al. 2015, Sec. 2.1).

    Args:
        student_logits: (B, C).
        teacher_logits: (B, C), no gradient reaches them.
        temperature: T > 0.
        weights: (B,) that multiply each image's term, which is still divided by B.

    Raises:
        ValueError: a temperature that is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"need temperature > 0, not {temperature}")
    student = F.log_softmax(student_logits.float() / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits.detach().float() / temperature, dim=1)
    if weights is None:
        return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)
    each = F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1)  # (B,)
    return temperature**2 * (each * weights).mean()


class DistillationTerms(NamedTuple):
    """The two parts of the loss, scalars in nats; α of the first and 1 − α of the second are minimised."""

    kl: Tensor
    ce: Tensor


def distillation_terms(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    temperature: float,
    weights: Tensor | None = None,
    smoothing: float = 0.0,
) -> DistillationTerms:
    """T² · KL(teacher/T ‖ student/T) and cross-entropy, each the mean over the batch.

    Args:
        student_logits: (B, C).
        teacher_logits: (B, C).
        labels: (B,) integer classes, or (B, C) shares of the classes.
        temperature: T > 0.
        weights: (B,) that multiply each image's part of both.
        smoothing: of the labels, see `cross_entropy`.
    """
    kl = softened_kl(student_logits, teacher_logits, temperature, weights)
    return DistillationTerms(kl, cross_entropy(student_logits.float(), labels, weights, smoothing))
