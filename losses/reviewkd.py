"""Distillation by knowledge review (Chen, Liu, Zhao & Jia, CVPR 2021).

From the deepest level to the shallowest, the student's map is reduced to a common width, fused with the upsampled
deeper one by two attention maps ("ABF"), and expanded to the teacher's channels. Each result is compared with the
teacher's map of the same level at several sizes ("HCL"). The deepest level is the pooled feature.

The paper compares with the teacher's maps before the activation. Taps are behind it.

Letters: B batch, C channels, M channels within the connectors, S side of a map.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .loss import STAGES, Loss, Samples, Sizes, Taps, View
from .maps import match_sides, pool_to
from .reuse import compute_squared_error

POOLED = "pooled"  # the level of the deepest map's average
SIDES = (4, 2, 1)  # at which maps are compared, beside their own
WIDEST = 512  # channels within the connectors


def compute_hcl(student: Tensor, teacher: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the squared error of maps at sides S, 4, 2 and 1.

    Weights are 1, 1/2, 1/4, 1/8 over their sum; sides that are not smaller than the maps' are left out.

    Args:
        student: (B, C, S, S).
        teacher: (B, C, S, S).
        weights: (B,) that multiply each image's term.
    """
    sides = [student.shape[2], *(side for side in SIDES if side < student.shape[2])]
    scales = [0.5**number for number in range(len(sides))]
    total = student.new_zeros(())
    for side, scale in zip(sides, scales, strict=True):
        own, other = (pool_to(maps, side).flatten(1) for maps in (student, teacher))
        total = total + scale * compute_squared_error(own, other, weights)
    return total / sum(scales)


class Fusion(nn.Module):
    """One level: the student's map, reduced to M channels, fused with the deeper level's and expanded.

    Args:
        student: C of the student's map.
        teacher: C of the teacher's.
        width: M.
        is_deepest: whether there is no deeper level to fuse with.
    """

    def __init__(self, student: int, teacher: int, width: int, is_deepest: bool) -> None:
        super().__init__()
        self.reduce = nn.Sequential(nn.Conv2d(student, width, 1, bias=False), nn.BatchNorm2d(width))
        self.attend = None if is_deepest else nn.Sequential(nn.Conv2d(2 * width, 2, 1), nn.Sigmoid())
        self.expand = nn.Sequential(nn.Conv2d(width, teacher, 3, padding=1, bias=False), nn.BatchNorm2d(teacher))

    def forward(self, maps: Tensor, deeper: Tensor) -> tuple[Tensor, Tensor]:
        """Return the fused map (B, M, S, S) and its expansion (B, C, S, S)."""
        own = self.reduce(maps)
        if self.attend is not None:
            other = F.interpolate(deeper, own.shape[2:])  # nearest
            shares = self.attend(torch.cat([own, other], dim=1))  # (B, 2, S, S)
            own = own * shares[:, :1] + other * shares[:, 1:]
        return own, self.expand(own)


class ReviewKD(Loss):
    """Maps of each stage and the pooled feature, each fused with the deeper ones, against the teacher's.

    Args:
        taps: weight of each tap's term; the pooled feature of the last one weighs 1
    """

    needs_maps = True

    def __init__(self, taps: Taps = STAGES) -> None:
        super().__init__()
        self.taps = taps

    def setup(self, sizes: Sizes) -> None:
        taps = sorted(self.used_taps, key=lambda tap: -sizes.student[tap][1])[::-1]  # the deepest first
        self.levels = [POOLED, *taps]
        channels = [(sizes.student[tap][0], sizes.teacher[tap][0]) for tap in (taps[0], *taps)]
        width = min(WIDEST, channels[0][0])
        self.fusion = nn.ModuleDict()
        for level, (own, other) in zip(self.levels, channels, strict=True):
            self.fusion[level] = Fusion(own, other, width, is_deepest=level == POOLED)

    def forward(self, student: View, teacher: View, samples: Samples) -> dict[str, Tensor]:
        own, other = self._add_pooled(student.maps), self._add_pooled(teacher.maps)
        fused = own[POOLED]
        terms = {}
        for level in self.levels:
            fused, expanded = self.fusion[level](own[level], fused)
            terms[level] = compute_hcl(*match_sides(expanded.float(), other[level].float()), samples.weights)
        return terms

    def _add_pooled(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return maps by level, the pooled feature (B, C, 1, 1) among them."""
        return {POOLED: maps[self.levels[1]].mean(dim=(2, 3), keepdim=True), **maps}
