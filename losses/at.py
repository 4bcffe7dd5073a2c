"""Attention transfer (Zagoruyko & Komodakis, ICLR 2017, activation-based).

L = Σ over stages of mean over entries of (n(q) − n(q'))², q the mean over channels of F² as a vector, n the unit
vector, F a stage's map. Permuted and scaled channels have the same attention.

Letters: B batch, C channels, S side of a map.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .loss import STAGES, Loss, Samples, Taps, View
from .maps import match_sides
from .reuse import compute_squared_error


def compute_attention(maps: Tensor) -> Tensor:
    """Return where maps (B, C, S, S) are active, unit vectors (B, S²)."""
    return F.normalize(maps.square().mean(dim=1).flatten(1), dim=1)


def compute_at(student: Tensor, teacher: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the mean over B S² entries of the squared difference of both attentions.

    Args:
        student: (B, C, S, S).
        teacher: (B, C, S, S), channels may differ.
        weights: (B,) that multiply each image's term.
    """
    return compute_squared_error(compute_attention(student), compute_attention(teacher), weights)


class AT(Loss):
    """Attention maps of each stage against the teacher's; the larger is pooled.

    Published are all stages; the default is the first three, which every network with stages has. Of four name
    `stage4`, too.

    Args:
        taps: weight of each tap's term
    """

    needs_maps = True

    def __init__(self, taps: Taps = STAGES) -> None:
        super().__init__()
        self.taps = taps

    def forward(self, student: View, teacher: View, samples: Samples) -> dict[str, Tensor]:
        pairs = {tap: (student.maps[tap].float(), teacher.maps[tap].float()) for tap in self.used_taps}
        return {tap: compute_at(*match_sides(*pair), samples.weights) for tap, pair in pairs.items()}
