"""Distillation of softened logits (Hinton, Vinyals & Dean 2015).

Letters: B batch, C classes, T temperature.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor


def softened_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T² · KL(softmax(teacher / T) ‖ softmax(student / T)), mean over the batch, in nats.

    The factor T² keeps the gradient's size independent of T (Hinton et al. 2015, Sec. 2.1).

    Args:
        student_logits: (B, C).
        teacher_logits: (B, C), no gradient reaches them.
        temperature: T > 0.

    Raises:
        ValueError: a temperature that is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"need temperature > 0, not {temperature}")
    student = F.log_softmax(student_logits.float() / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits.detach().float() / temperature, dim=1)
    return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)


class DistillationTerms(NamedTuple):
    """The two parts of the loss, scalars in nats; α of the first and 1 − α of the second are minimised."""

    kl: Tensor
    ce: Tensor


def distillation_terms(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float
) -> DistillationTerms:
    """T² · KL(teacher/T ‖ student/T) and cross-entropy, each the mean over the batch.

    Args:
        student_logits: (B, C).
        teacher_logits: (B, C).
        labels: (B,) integer classes.
        temperature: T > 0.
    """
    kl = softened_kl(student_logits, teacher_logits, temperature)
    return DistillationTerms(kl, F.cross_entropy(student_logits.float(), labels))
