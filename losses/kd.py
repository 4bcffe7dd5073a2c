"""Distillation of softened logits (Hinton, Vinyals & Dean 2015).

Letters: B batch, C classes, T temperature.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def softened_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T² · KL(softmax(teacher / T) ‖ softmax(student / T)), mean over the batch, in nats.

    The factor T² keeps the gradient's size independent of T (Hinton et al. 2015, Sec. 2.1).

    Args:
        student_logits: (B, C).
        teacher_logits: (B, C), no gradient reaches them.
        temperature: T > 0.
    """
    student = F.log_softmax(student_logits.float() / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits.detach().float() / temperature, dim=1)
    return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    temperature: float = 4.0,
    alpha: float = 0.9,
) -> Tensor:
    """α · T² · KL(teacher/T ‖ student/T) + (1 − α) · cross-entropy, mean over the batch, in nats.

    Args:
        student_logits: (B, C).
        teacher_logits: (B, C).
        labels: (B,) integer classes.
        temperature: T > 0.
        alpha: share of the KL in [0, 1]; 1 is the KL alone.

    Raises:
        ValueError: a temperature that is not positive, an alpha outside [0, 1].
    """
    if temperature <= 0 or not 0 <= alpha <= 1:
        raise ValueError(f"need temperature > 0 and 0 <= alpha <= 1, not {temperature} and {alpha}")
    kl = softened_kl(student_logits, teacher_logits, temperature)
    return alpha * kl + (1 - alpha) * F.cross_entropy(student_logits.float(), labels)
