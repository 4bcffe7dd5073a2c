"""Distillation of softened logits (Hinton, Vinyals & Dean 2015), and what losses of logits share.

Letters: B batch, C classes, T temperature, z logits of one image.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .loss import Loss, Samples, Temperature, View

EPSILON = 1e-7  # beside the standard deviation of logits
FLOAT32_UP_TO = 16.0  # T: above it float32 rounds away the small differences that T² multiplies


def standardise(logits: Tensor) -> Tensor:
    """Standardise each row of (B, C), std unbiased (Sun et al., CVPR 2024)."""
    centred = logits - logits.mean(dim=1, keepdim=True)
    return centred / (logits.std(dim=1, keepdim=True) + EPSILON)


def soften(logits: Tensor, temperature: float) -> Tensor:
    """Return logits / T, in float64 where T is large, except on a device without it."""
    is_precise = temperature > FLOAT32_UP_TO and logits.device.type != "mps"
    return (logits.double() if is_precise else logits) / temperature


def read_logits(student: View, teacher: View, standardised: bool) -> tuple[Tensor, Tensor]:
    """Return both networks' logits (B, C) in float32, standardised if asked."""
    own, other = student.logits.float(), teacher.logits.float()
    return (standardise(own), standardise(other)) if standardised else (own, other)


def compute_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """Return KL(teacher ‖ student) (B,) in nats of log-probabilities (B, C)."""
    return F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1)


def compute_softened_kl(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float, weights: Tensor | None = None
) -> Tensor:
    """Return T² KL(softmax(teacher / T) ‖ softmax(student / T)), batch mean.

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
    student = F.log_softmax(soften(student_logits.float(), temperature), dim=1)
    teacher = F.log_softmax(soften(teacher_logits.detach().float(), temperature), dim=1)
    if weights is None:
        return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True).float()
    return temperature**2 * (compute_kl(student, teacher) * weights).mean().float()


class KL(Loss):
    """T² times the KL divergence from the student's softened answer to the teacher's.

    Args:
        temperature: T, which softens both networks' logits
        standardise: whether logits of each image are first standardised (Sun et al., CVPR 2024)
    """

    needs_logits = True

    def __init__(self, temperature: Temperature = 4.0, standardise: bool = False) -> None:
        super().__init__()
        self.temperature, self.standardise = temperature, standardise

    def forward(self, student: View, teacher: View, samples: Samples) -> Tensor:
        logits = read_logits(student, teacher, self.standardise)
        return compute_softened_kl(*logits, self.temperature, samples.weights)
