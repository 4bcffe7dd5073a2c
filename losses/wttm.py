"""Weighted transformed teacher matching (Zheng & Yang, ICLR 2024).

L = mean over images of N KL(p^γ / N ‖ q), N = Σ over classes of p^γ. A power softens the teacher's answer p, not
the student's q. Images on which the teacher is unsure count more.

Letters: B batch, C classes, p of the teacher, q of the student.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .kl import compute_kl, read_logits
from .loss import Loss, Positive, Samples, View


def compute_wttm(student: Tensor, teacher: Tensor, gamma: float, weights: Tensor | None = None) -> Tensor:
    """Return N KL(p^γ / N ‖ q), mean over the batch, in nats.

    Args:
        student: logits (B, C).
        teacher: logits (B, C).
        gamma: power of the teacher's probabilities, γ = 1/T.
        weights: (B,) that multiply each image's term.
    """
    powered = gamma * F.log_softmax(teacher, dim=1)
    log_sum = powered.logsumexp(dim=1, keepdim=True)  # log N, (B, 1)
    each = log_sum[:, 0].exp() * compute_kl(F.log_softmax(student, dim=1), powered - log_sum)  # (B,)
    return (each if weights is None else each * weights).mean()


class WTTM(Loss):
    """KL divergence from the student's plain answer to a power of the teacher's, weighted by that power's sum.

    Args:
        gamma: power of the teacher's probabilities, 1 / temperature
        standardise: whether logits of each image are first standardised (Sun et al., CVPR 2024)
    """

    needs_logits = True

    def __init__(self, gamma: Positive = 0.2, standardise: bool = False) -> None:
        super().__init__()
        self.gamma, self.standardise = gamma, standardise

    def forward(self, student: View, teacher: View, samples: Samples) -> Tensor:
        logits = read_logits(student, teacher, self.standardise)
        return compute_wttm(*logits, self.gamma, samples.weights)
