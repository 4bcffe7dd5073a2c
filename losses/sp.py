"""Similarity-preserving knowledge distillation (Tung & Mori, ICCV 2019).

L = ‖r(F Fᵀ) − r(F' F'ᵀ)‖² / B², F the maps of a batch as rows, r divides each row by its length.

Letters: B batch, D values of an image's feature, which may differ between networks.
"""

from __future__ import annotations

from types import MappingProxyType

import torch.nn.functional as F
from torch import Tensor

from .loss import Loss, Samples, Taps, View, compare_batch

LAST_STAGE: Taps = MappingProxyType({"last_stage": 1.0})


def compute_similarities(features: Tensor) -> Tensor:
    """Return inner products of features (B, D), rows (B, B) of length 1."""
    return F.normalize(features @ features.T, dim=1)


def compute_sp(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of both networks' similarities.

    Args:
        student: (B, D).
        teacher: (B, D) of the same images.
    """
    return F.mse_loss(compute_similarities(student), compute_similarities(teacher))


class SP(Loss):
    """Products of the images of a batch with each other, as the teacher has them, of flattened maps.

    Published is the last map: of networks with four stages name `stage4`.

    Args:
        taps: weight of each tap's term
    """

    needs_maps, uses_weights = True, False

    def __init__(self, taps: Taps = LAST_STAGE) -> None:
        super().__init__()
        self.taps = taps

    def forward(self, student: View, teacher: View, samples: Samples) -> dict[str, Tensor]:
        pairs = {tap: (student.maps[tap].flatten(1), teacher.maps[tap].flatten(1)) for tap in self.used_taps}
        return {tap: compare_batch(compute_sp, *pair, self.processes) for tap, pair in pairs.items()}
