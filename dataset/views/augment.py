"""Views: augmented versions of training images, made a batch at a time.

A view is a function of (seed, image index, view number) alone.
Letters: N images of the data set, B batch, S side in pixels, P padding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dataset.transfer import to_device


@dataclass(frozen=True)
class Augmentation:
    """Changes of one view to every image: crop offsets, mirroring, and others."""

    rows: Tensor  # (N,) in 0..2P
    columns: Tensor  # (N,) in 0..2P
    mirrored: Tensor  # (N,) bool
    padding: int
    change: Callable[[Tensor, Tensor], Tensor] | None = None  # of pixels (B, 3, S, S) at indices (B,), afterwards


def make_generator(*key: int) -> torch.Generator:
    """Return a CPU generator that is seeded by a tuple of integers."""
    state = np.random.SeedSequence([part % 2**64 for part in key]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]) >> 1)


def draw_view(seed: int, view: int, num_images: int, padding: int, flip: bool) -> Augmentation:
    """Draw a view of all images: offsets uniform over 2P + 1, mirrored by chance."""
    source = make_generator(seed, view)
    rows, columns = torch.randint(0, 2 * padding + 1, (2, num_images), generator=source)
    mirrored = torch.rand(num_images, generator=source) < 0.5
    return Augmentation(rows, columns, mirrored & flip, padding)


def apply_view(pixels: Tensor, indices: Tensor, view: Augmentation) -> Tensor:
    """Crop, mirror and change `pixels` (B, 3, S, S), the images at `indices` (B,).

    Each row of a window is S bytes on end in the padded image, wherever it begins, so one selection of rows from
    all places at which one could begin crops the batch. Mirrored windows come from mirrored copies.
    """
    count, channels, side, _ = pixels.shape
    padding, device = view.padding, pixels.device
    width = side + 2 * padding
    padded = F.pad(torch.cat([pixels, pixels.flip(3)]), [padding] * 4).contiguous()  # (2B, 3, S + 2P, S + 2P)
    mirrored, rows, columns = (
        to_device(part[indices], device) for part in (view.mirrored, view.rows, view.columns)
    )
    image = mirrored * count + torch.arange(count, device=device)  # (B,) of the 2B padded ones
    corner = (image * channels * width + rows) * width + columns  # (B,) where each window begins
    lines = torch.arange(channels, device=device)[:, None] * width + torch.arange(side, device=device)  # (3, S)
    begins = corner[:, None] + lines.reshape(-1) * width  # (B, 3S)
    every = padded.as_strided((padded.numel() - side + 1, side), (1, 1))  # a strided view, nothing is copied
    cropped = every.index_select(0, begins.reshape(-1)).view(pixels.shape)
    return cropped if view.change is None else view.change(cropped, indices)


def normalise(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Normalise uint8 (B, 3, S, S) by means and deviations (3,) in 0..1."""
    scale = 1 / (255 * std)
    return pixels.float().mul_(scale[:, None, None]).sub_((mean / std)[:, None, None])
