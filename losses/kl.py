"""Distillation of softened logits (Hinton, Vinyals & Dean 2015).

Letters: B batch, C classes, T temperature.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .loss import Loss, Positive, Samples, View


def softened_kl(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float, weights: Tensor | None = None
) -> Tensor:
    """Return T² · KL(softmax(teacher / T) ‖ softmax(student / T)), mean over the batch, in nats.

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


class KL(Loss):
    """T² times the KL divergence from the student's softened answer to the teacher's.

    Args:
        temperature: T, which softens both networks' logits
    """

    needs_logits = True

    def __init__(self, temperature: Positive = 4.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, student: View, teacher: View, samples: Samples) -> Tensor:
        return softened_kl(student.logits, teacher.logits, self.temperature, samples.weights)
