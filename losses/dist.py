"""Distillation from a stronger teacher (Huang, You, Wang, Qian & Xu, NeurIPS 2022, "DIST").

L = τ² [β (1 − mean over images of ρ(q_i, p_i)) + γ (1 − mean over classes of ρ(q_c, p_c))]. ρ is Pearson's
correlation: of an image's probabilities over classes, and of a class's over the images of the batch.

Letters: B batch, C classes, τ temperature, p of the teacher, q of the student.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .kl import read_logits, soften
from .loss import Loss, NonNegative, Samples, Temperature, View


def compute_correlations(first: Tensor, second: Tensor) -> Tensor:
    """Return Pearson's correlation (R,) of rows (R, S), 0 if constant."""
    own, other = (one - one.mean(dim=1, keepdim=True) for one in (first, second))
    return F.cosine_similarity(own, other, dim=1)


def compute_dist(student: Tensor, teacher: Tensor, beta: float, gamma: float, temperature: float) -> Tensor:
    """Return the weighted distances of rows and columns from correlation 1.

    Args:
        student: logits (B, C).
        teacher: logits (B, C).
        beta: weight of relations between classes, in one image.
        gamma: weight of relations between images, in one class.
        temperature: τ.
    """
    own, other = (F.softmax(soften(logits, temperature), dim=1) for logits in (student, teacher))
    inter = 1 - compute_correlations(own, other).mean()
    intra = 1 - compute_correlations(own.T, other.T).mean()
    return temperature**2 * (beta * inter + gamma * intra).to(student.dtype)


class DIST(Loss):
    """Correlation of softened answers, between classes and between the images of the batch.

    Args:
        beta: weight of relations between the classes of an image
        gamma: weight of relations between the images of a batch
        temperature: tau, which softens both networks' logits
        standardise: whether logits of each image are first standardised (Sun et al., CVPR 2024)
    """

    needs_logits, uses_weights = True, False

    def __init__(
        self,
        beta: NonNegative = 1.0,
        gamma: NonNegative = 1.0,
        temperature: Temperature = 4.0,
        standardise: bool = False,
    ) -> None:
        super().__init__()
        self.beta, self.gamma, self.temperature, self.standardise = beta, gamma, temperature, standardise

    def forward(self, student: View, teacher: View, samples: Samples) -> Tensor:
        own, other = read_logits(student, teacher, self.standardise)
        own, other = self.processes.gather_with_gradient(own), self.processes.gather(other)
        return compute_dist(own, other, self.beta, self.gamma, self.temperature)
