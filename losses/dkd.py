"""Decoupled knowledge distillation (Zhao, Cui, Song, Qiu & Liang, CVPR 2022, Eq. 7).

L = T² [α KL((p_y, 1 − p_y) ‖ (q_y, 1 − q_y)) + β KL(p̂ ‖ q̂)], p of the teacher, q of the student. p̂ and q̂ are the
shares of the other classes among themselves. Plain distillation is the first term plus (1 − p_y) times the second.

Letters: B batch, C classes, T temperature, y the label.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .kl import compute_kl, read_logits, soften
from .loss import Loss, NonNegative, Samples, Temperature, View


def split_at_label(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return log-probabilities (B, 2) of label and rest, and (B, C − 1) of others.

    Args:
        logits: (B, C).
        labels: (B,).
    """
    others = torch.arange(logits.shape[1] - 1, device=logits.device).expand(len(logits), -1)
    others = others + (others >= labels[:, None])  # (B, C − 1), every class but the label
    rest = logits.gather(1, others)
    both = torch.cat([logits.gather(1, labels[:, None]), rest.logsumexp(dim=1, keepdim=True)], dim=1)
    return F.log_softmax(both, dim=1), F.log_softmax(rest, dim=1)


def compute_dkd(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    alpha: float,
    beta: float,
    temperature: float,
    weights: Tensor | None = None,
) -> Tensor:
    """Return T² [α TCKD + β NCKD], mean over the batch, in nats.

    Args:
        student: logits (B, C).
        teacher: logits (B, C).
        labels: (B,).
        alpha: weight of the label's term, TCKD.
        beta: weight of the other classes' term, NCKD.
        temperature: T.
        weights: (B,) that multiply each image's term.
    """
    own, own_rest = split_at_label(soften(student, temperature), labels)
    other, other_rest = split_at_label(soften(teacher, temperature), labels)
    each = temperature**2 * (alpha * compute_kl(own, other) + beta * compute_kl(own_rest, other_rest))  # (B,)
    return (each if weights is None else each * weights).mean().to(student.dtype)


class DKD(Loss):
    """KL divergence of softened answers, with the label's part and that of the other classes weighted apart.

    Args:
        alpha: weight of the label against the rest
        beta: weight of the other classes among themselves
        temperature: T, which softens both networks' logits
        standardise: whether logits of each image are first standardised (Sun et al., CVPR 2024)
    """

    needs_logits = needs_labels = True

    def __init__(
        self,
        alpha: NonNegative = 1.0,
        beta: NonNegative = 8.0,
        temperature: Temperature = 4.0,
        standardise: bool = False,
    ) -> None:
        super().__init__()
        self.alpha, self.beta, self.temperature, self.standardise = alpha, beta, temperature, standardise

    def forward(self, student: View, teacher: View, samples: Samples) -> Tensor:
        logits = read_logits(student, teacher, self.standardise)
        return compute_dkd(*logits, samples.labels, self.alpha, self.beta, self.temperature, samples.weights)
