"""Regularisation by chance of what is seen in a training step: two images mixed, or a square of each erased.

Mixup is that of Zhang et al. (ICLR 2018), one share for a batch; erasing is after DeVries & Taylor (2017) and
Zhong et al. (AAAI 2020). What is drawn is a function of (seed, epoch, step) alone.

Letters: B images of the step, in all processes together, S side in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dataset.augment import generator

STREAM = 0x313  # keeps the draws below apart from those of views, batches and cues


@dataclass(frozen=True)
class Mixup:
    """Which image is mixed into which, and how much of an image is its own."""

    partners: Tensor  # (B,) positions in the step's batch
    share: float  # in 0..1, of an image itself

    def __call__(self, own: Tensor, others: Tensor) -> Tensor:
        """Mix tensors of the same shape."""
        return self.share * own + (1 - self.share) * others


def draw_mixup(count: int, strength: float, seed: int, epoch: int, step: int) -> Mixup:
    """A share from Beta(strength, strength) and a permutation of `count` images."""
    source = generator(STREAM, seed, epoch, step)
    share = float(np.random.default_rng(source.initial_seed()).beta(strength, strength))
    return Mixup(torch.randperm(count, generator=source), share)


def draw_squares(count: int, image_side: int, share: float, seed: int, epoch: int, step: int) -> Tensor:
    """A square of `share` of an image's area, anywhere within it, for each: bool (count, S, S), True inside."""
    side = min(image_side, max(1, round(image_side * share**0.5)))
    source = generator(STREAM, seed, epoch, step)
    corners = torch.randint(0, image_side - side + 1, (count, 2, 1), generator=source)  # row and column
    places = torch.arange(image_side)
    inside = (places >= corners) & (places < corners + side)  # (count, 2, S)
    squares: Tensor = inside[:, 0, :, None] & inside[:, 1, None, :]
    return squares


def erase(images: Tensor, squares: Tensor) -> Tensor:
    """Normalised images (B, 3, S, S), at their data set's mean where `squares` (B, S, S) says so."""
    return images.masked_fill(squares.to(images.device)[:, None], 0.0)
