"""Pillow's bilinear resizing as two products of matrices, which every graph format has and any size goes through.

Letters: B batch, H x W height and width of a picture, S side of the result, L length of an edge.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Resize = Literal["squash", "crop"]
TIE = 2e-4  # halves go up in every runtime, though its sums are off by some 1e-5


def resize_pixels(pixels: Tensor, side: int, resize: Resize) -> Tensor:
    """(B, 3, H, W) of 0..255 as whole numbers, (B, 3, S, S) float32.

    squash: to the square. crop: the short edge to S, then the centre. Rounded between its two passes, across
    first, as Pillow does; pixels that have the size already stay as they are.
    """
    height, width = pixels.shape[2:]
    short: int | None = torch.sym_min(height, width) if resize == "crop" else None  # type: ignore[assignment]  # an int
    device = pixels.device
    across = _whole(pixels.float() @ _weights(width, side, short, device).T)  # (B, 3, H, S)
    return _whole(_weights(height, side, short, device) @ across)


def _weights(length: int, side: int, short: int | None, device: torch.device) -> Tensor:
    """What each pixel along an edge counts for each of the result, (S, L): a triangle around its centre.

    short: length of the shorter edge, of which a part of this edge as long is kept; None keeps all of it.
    """
    wanted = side if short is None else side * length // short  # L after resizing
    left = 0 if short is None else _half(wanted - side)
    scale = torch.full((1,), length, dtype=torch.float32, device=device) / wanted
    centres = (torch.arange(side, device=device) + (left + 0.5)) * scale
    places = torch.arange(length, device=device) + 0.5
    weights = (1 - (places - centres[:, None]).abs() / scale.clamp(min=1)).clamp(min=0)
    return weights / weights.sum(dim=1, keepdim=True)


def _half(number: int) -> int:
    """Half of a number of pixels as Python rounds it, a half to the even side."""
    low = number // 2
    return low + number % 2 * (low % 2)


def _whole(values: Tensor) -> Tensor:
    return (values + (0.5 + TIE)).floor().clamp(0, 255)
