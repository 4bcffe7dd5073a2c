"""Views: augmented versions of training images, made a batch at a time on the images' device.

A view is a function of (seed, image index, view number) alone.
Letters: N images of the data set, B batch, S side in pixels, P padding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class View:
    """What one view number does to every image: offsets of its crop and whether it is mirrored."""

    rows: Tensor  # (N,) in 0..2P
    columns: Tensor  # (N,) in 0..2P
    mirrored: Tensor  # (N,) bool
    padding: int


def generator(*key: int) -> torch.Generator:
    """A CPU generator seeded by a tuple of non-negative integers, so that streams of different keys differ."""
    state = np.random.SeedSequence([part % 2**64 for part in key]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> 1))


def draw_view(seed: int, view: int, num_images: int, padding: int, flip: bool) -> View:
    """Draw view number `view` of all images: crop offsets uniform over 2P + 1, mirrored with probability 1/2."""
    source = generator(seed, view)
    rows, columns = torch.randint(0, 2 * padding + 1, (2, num_images), generator=source)
    mirrored = torch.rand(num_images, generator=source) < 0.5
    return View(rows, columns, mirrored & flip, padding)


def apply_view(pixels: Tensor, indices: Tensor, view: View) -> Tensor:
    """Crop and mirror: `pixels` (B, 3, S, S) are the images at `indices` (B,), on the same device."""
    mirrored = view.mirrored[indices].to(pixels.device)
    pixels = torch.where(mirrored[:, None, None, None], pixels.flip(3), pixels)
    if view.padding == 0:
        return pixels
    rows, columns = view.rows[indices].to(pixels.device), view.columns[indices].to(pixels.device)
    side = pixels.shape[-1]
    padded = F.pad(pixels, [view.padding] * 4)
    windows = padded.unfold(2, side, 1).unfold(3, side, 1)  # (B, 3, 2P + 1, 2P + 1, S, S), a strided view
    return windows[torch.arange(len(pixels), device=pixels.device), :, rows, columns]


def normalise(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 (B, 3, S, S) to float32 with channel means and deviations (3,) in 0..1."""
    scale = 1 / (255 * std)
    return pixels.float().mul_(scale[:, None, None]).sub_((mean / std)[:, None, None])
