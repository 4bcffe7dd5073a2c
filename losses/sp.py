"""Similarity-preserving knowledge distillation (Tung & Mori, ICCV 2019).

L = ‖r(F Fᵀ) − r(F' F'ᵀ)‖² / B², F the maps of a batch as rows, r divides each row by its length.

Letters: B batch, D values of an image's feature, which may differ between networks.
"""

from __future__ import annotations

from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from .loss import Loss, Processes, Samples, Sizes, Taps, View

STAGE3: Taps = MappingProxyType({"stage3": 1.0})


def compute_similarities(features: Tensor) -> Tensor:
    """Return products of the images of a batch with each other, rows (B, B) of length 1, of features (B, D)."""
    return F.normalize(features @ features.T, dim=1)


def sp(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean over B² entries of the squared difference of both networks' similarities.

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

    needs_maps, takes_weights = True, False

    def __init__(self, taps: Taps = STAGE3) -> None:
        super().__init__()
        self.taps = taps

    def setup(self, sizes: Sizes) -> None:
        self.processes: Processes = sizes.processes

    def forward(self, student: View, teacher: View, samples: Samples) -> dict[str, Tensor]:
        terms = {}
        for tap in self.used_taps:
            own = self.processes.gather_with_gradient(student.maps[tap].float().flatten(1))
            other = self.processes.gather(teacher.maps[tap].float().flatten(1))
            with torch.autocast(own.device.type, enabled=False):  # differences are smaller than bfloat16's steps
                terms[tap] = sp(own, other)
        return terms
