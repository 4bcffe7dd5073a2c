"""Pillow's bilinear resizing as two matrix products, for every graph format.

Letters: B batch, H x W height and width of an image, S side of the result, L length of an edge.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Resize = Literal["squash", "crop"]
TIE = 2e-4  # added before rounding: halves go up in every runtime, though sums differ by some 1e-5


def resize_pixels(pixels: Tensor, side: int, resize: Resize) -> Tensor:
    """Resize (B, 3, H, W) of whole numbers in 0..255 to (B, 3, S, S) float32.

    squash: to the square. crop: the short edge to S, then the centre. As in Pillow, width comes first and each
    pass is rounded; images that have the size already stay as they are.
    """
    height, width = pixels.shape[2:]
    short: int | None = torch.sym_min(height, width) if resize == "crop" else None  # type: ignore[assignment]  # an int
    device = pixels.device
    across = _round(pixels.float() @ _make_weights(width, side, short, device).T)  # (B, 3, H, S)
    return _round(_make_weights(height, side, short, device) @ across)


def _make_weights(length: int, side: int, short: int | None, device: torch.device) -> Tensor:
    """Return the weights of an edge's pixels in those of the result, (S, L).

    Each is a triangle around its centre.

    short: length of the shorter edge, to whose central part this edge is cropped; None keeps all of it.
    """
    wanted = side if short is None else side * length // short  # L after resizing
    left = 0 if short is None else _round_half(wanted - side)
    scale = torch.full((1,), length, dtype=torch.float32, device=device) / wanted
    centres = (torch.arange(side, device=device) + (left + 0.5)) * scale
    places = torch.arange(length, device=device) + 0.5
    weights = (1 - (places - centres[:, None]).abs() / scale.clamp(min=1)).clamp(min=0)
    return weights / weights.sum(dim=1, keepdim=True)


def _round_half(number: int) -> int:
    """Return half of a number rounded to even; no exported graph has `round`."""
    low = number // 2
    return low + number % 2 * (low % 2)


def _round(values: Tensor) -> Tensor:
    return (values + (0.5 + TIE)).floor().clamp(0, 255)
