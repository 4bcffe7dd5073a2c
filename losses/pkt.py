"""Probabilistic knowledge transfer (Passalis & Tefas, ECCV 2018).

L = mean over i, j of p_ij log((p_ij + ε) / (q_ij + ε)), p of the teacher and q of the student: how near image j is
to image i, (cos(f_i, f_j) + 1) / 2 over the sum of its row.

Letters: B batch, D dimension of a feature, which may differ between networks.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .loss import LAST, Loss, Samples, Taps, View, compare_batch

EPSILON = 1e-7


def compute_neighbours(features: Tensor) -> Tensor:
    """Return nearness (B, B) of features (B, D), rows that sum to 1."""
    units = F.normalize(features, dim=1)
    near = (units @ units.T + 1) / 2
    return near / near.sum(dim=1, keepdim=True)


def compute_pkt(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the divergence of both networks' nearness, mean over B² entries.

    Args:
        student: (B, D).
        teacher: (B, D) of the same images.
    """
    own, other = compute_neighbours(student), compute_neighbours(teacher)
    return (other * ((other + EPSILON) / (own + EPSILON)).log()).mean()


class PKT(Loss):
    """Nearness of a batch's images, by cosine, against the teacher's.

    Args:
        taps: weight of each tap's term
    """

    uses_weights = False

    def __init__(self, taps: Taps = LAST) -> None:
        super().__init__()
        self.taps = taps

    def forward(self, student: View, teacher: View, samples: Samples) -> dict[str, Tensor]:
        pairs = {tap: (student.taps[tap], teacher.taps[tap]) for tap in self.used_taps}
        return {tap: compare_batch(compute_pkt, *pair, self.processes) for tap, pair in pairs.items()}
