"""Sizes of maps, for losses that compare them.

Letters: B batch, C channels, S side of a square map.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def pool_to(maps: Tensor, side: int) -> Tensor:
    """Average-pool maps (B, C, S, S) to (B, C, side, side)."""
    own = maps.shape[2]
    if own == side:
        return maps
    if own % side == 0:  # unlike the general case, its gradient is deterministic on GPUs
        return F.avg_pool2d(maps, own // side)
    return F.adaptive_avg_pool2d(maps, side)


def match_sides(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Average-pool the larger of two maps to the side of the smaller."""
    side = min(first.shape[2], second.shape[2])
    return pool_to(first, side), pool_to(second, side)
