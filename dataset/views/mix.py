"""Mixing within a batch: two images mixed, or a square of each erased.

Mixup is that of Zhang et al. (ICLR 2018), one share for a batch, CutMix that of Yun et al. (ICCV 2019), one box
for a batch; erasing is after DeVries & Taylor (2017) and Zhong et al. (AAAI 2020). What is drawn is a function of
(seed, epoch, step) alone.

Letters: B images of the step, in all processes together, S side in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dataset.transfer import to_device
from dataset.views.augment import make_generator

STREAM = 0x313  # keeps the draws below apart from those of views, batches and cues


@dataclass(frozen=True)
class Mix:
    """A mix of pairs of images, everywhere alike or within a box."""

    partners: Tensor  # (B,) positions in the step's batch
    share: float  # in 0..1, of an image itself
    box: tuple[slice, slice] | None = None  # rows and columns that are the partner's

    def __call__(self, own: Tensor, others: Tensor) -> Tensor:
        """Mix images (B, 3, S, S)."""
        if self.box is None:
            return self.mix_labels(own, others)
        mixed, (rows, columns) = own.clone(), self.box
        mixed[:, :, rows, columns] = others[:, :, rows, columns]
        return mixed

    def mix_labels(self, own: Tensor, others: Tensor) -> Tensor:
        """Mix shares of classes (B, C)."""
        return self.share * own + (1 - self.share) * others


def draw_mixup(count: int, strength: float, seed: int, epoch: int, step: int) -> Mix:
    """Draw a share from Beta(strength, strength) and a permutation of `count` images."""
    source = make_generator(STREAM, seed, epoch, step)
    share = float(np.random.default_rng(source.initial_seed()).beta(strength, strength))
    return Mix(torch.randperm(count, generator=source), share)


def draw_cutmix(count: int, side: int, strength: float, seed: int, epoch: int, step: int) -> Mix:
    """Draw as `draw_mixup`, with a box of the other share, cut at the edges.

    The share is then what the box leaves of an image of `side` x `side` pixels.
    """
    source = make_generator(STREAM, seed, epoch, step)
    draw = np.random.default_rng(source.initial_seed())
    half = side * (1 - float(draw.beta(strength, strength))) ** 0.5 / 2
    centre = draw.uniform(0, side, 2)
    top, left = (centre - half).clip(0, side).round().astype(int).tolist()
    bottom, right = (centre + half).clip(0, side).round().astype(int).tolist()
    share = 1 - (bottom - top) * (right - left) / side**2
    return Mix(torch.randperm(count, generator=source), share, (slice(top, bottom), slice(left, right)))


def draw_squares(count: int, image_side: int, share: float, seed: int, epoch: int, step: int) -> Tensor:
    """Draw a square of `share` of the area for each image, bool (count, S, S)."""
    side = min(image_side, max(1, round(image_side * share**0.5)))
    source = make_generator(STREAM, seed, epoch, step)
    corners = torch.randint(0, image_side - side + 1, (count, 2, 1), generator=source)  # row and column
    places = torch.arange(image_side)
    inside = (places >= corners) & (places < corners + side)  # (count, 2, S)
    squares: Tensor = inside[:, 0, :, None] & inside[:, 1, None, :]
    return squares


def mask_squares(images: Tensor, squares: Tensor) -> Tensor:
    """Set normalised images (B, 3, S, S) to the mean within `squares` (B, S, S)."""
    return images.masked_fill(to_device(squares, images.device)[:, None], 0.0)
