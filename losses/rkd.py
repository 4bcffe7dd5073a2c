"""Relational knowledge distillation (Park, Kim, Lu & Cho, CVPR 2019).

L = λ_d mean over i, j of h(d_ij − d'_ij) + λ_a mean over i, j, k of h(a_ijk − a'_ijk). h is the Huber loss, d_ij
the distance |f_i − f_j| over its mean, a_ijk = ⟨n(f_i − f_j), n(f_k − f_j)⟩ the cosine of an angle, n the unit
vector. Both terms ignore shifts, rotations and the scale of the features.

Letters: B batch, D dimension of a feature, which may differ between networks.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from .loss import LAST, Loss, NonNegative, Samples, Taps, View, compare_batch


def compute_relations(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return distances (B, B) over their mean, and cosines (B, B, B) of angles."""
    count = len(features)
    differences = features[None] - features[:, None]  # (B, B, D), f_i − f_j at [j, i]
    distances = differences.norm(dim=2)
    mean = distances.sum() / max(count * (count - 1), 1)
    directions = F.normalize(differences, dim=2)
    return distances / mean.clamp(min=torch.finfo(mean.dtype).tiny), directions @ directions.transpose(1, 2)


def compute_rkd(student: Tensor, teacher: Tensor, distance: float, angle: float) -> Tensor:
    """Return λ_d times the distances' term plus λ_a times the angles' term.

    Args:
        student: (B, D).
        teacher: (B, D) of the same images.
        distance: λ_d.
        angle: λ_a.
    """
    (distances, angles), (distances_t, angles_t) = compute_relations(student), compute_relations(teacher)
    return distance * F.smooth_l1_loss(distances, distances_t) + angle * F.smooth_l1_loss(angles, angles_t)


class RKD(Loss):
    """Distances between the images of a batch, and angles between three of them, as the teacher has them.

    Args:
        taps: weight of each tap's term
        distance: weight of distances
        angle: weight of angles
    """

    uses_weights = False

    def __init__(self, taps: Taps = LAST, distance: NonNegative = 25.0, angle: NonNegative = 50.0) -> None:
        super().__init__()
        self.taps, self.distance, self.angle = taps, distance, angle

    def forward(self, student: View, teacher: View, samples: Samples) -> dict[str, Tensor]:
        compute = partial(compute_rkd, distance=self.distance, angle=self.angle)
        pairs = {tap: (student.taps[tap], teacher.taps[tap]) for tap in self.used_taps}
        return {tap: compare_batch(compute, *pair, self.processes) for tap, pair in pairs.items()}
