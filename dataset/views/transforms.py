"""torchvision's augmentations, each a function of (seed, view, image) alone.

torchvision draws from torch's global generator, which is seeded for every image and restored. That costs a call an
image; crop and flip, which need none, are in `dataset.views.augment`. Functions import torchvision, since it takes
seconds and most configs name none of these.

Letters: B batch, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from dataset.views.augment import make_generator
from errors import UserError, suggest_nearest

STREAM = 0x2A1  # keeps the draws below apart from those of crops, batches, mixes and cues
NAMES = (
    *("AugMix", "AutoAugment", "ColorJitter", "GaussianBlur", "RandAugment", "RandomAdjustSharpness"),
    *("RandomAffine", "RandomAutocontrast", "RandomEqualize", "RandomErasing", "RandomGrayscale"),
    *("RandomPerspective", "RandomPosterize", "RandomResizedCrop", "RandomRotation", "RandomSolarize"),
    *("RandomVerticalFlip", "TrivialAugmentWide"),
)
TRIALS = 20  # since some do something to some images alone
Named = Sequence[Mapping[str, Mapping[str, Any]]]  # one name with options an entry


@dataclass(frozen=True)
class Transforms:
    """Some of torchvision's transforms in order, for one view of uint8 images."""

    steps: tuple[nn.Module, ...]
    seed: int
    view: int

    def __call__(self, pixels: Tensor, indices: Tensor) -> Tensor:
        """Transform uint8 (B, 3, S, S), the images at `indices` (B,), one by one."""
        changed = []
        with torch.random.fork_rng(devices=[]):
            for image, index in zip(pixels, indices.tolist(), strict=True):
                torch.default_generator.manual_seed(
                    make_generator(STREAM, self.seed, self.view, index).initial_seed()
                )
                for step in self.steps:
                    image = step(image)
                changed.append(image)
        return torch.stack(changed)


def build_transforms(named: Named, side: int) -> tuple[nn.Module, ...]:
    """Build the transforms of data.augment for images of side S."""
    return tuple(_build(name, options, side) for entry in named for name, options in entry.items())


def check_transforms(named: Named, side: int) -> None:
    """Raise `UserError` for an unknown name, or an option that it refuses."""
    for entry in named:
        for name, options in entry.items():
            _check(name, options, side)


def _build(name: str, options: Mapping[str, Any], side: int) -> nn.Module:
    ours = {"size": side, "antialias": True} if name == "RandomResizedCrop" else {}
    step: nn.Module = getattr(import_module("torchvision.transforms.v2"), name)(**options, **ours)
    return step


def _check(name: str, options: Mapping[str, Any], side: int) -> None:
    if name not in NAMES:
        raise UserError(
            f"data.augment: unknown transform {name!r}{suggest_nearest(name, NAMES)} ({', '.join(NAMES)})"
        )
    tried = []
    try:
        step = _build(name, options, side)
        with torch.random.fork_rng(devices=[]):
            for seed in range(TRIALS):
                torch.default_generator.manual_seed(seed)
                tried.append(step(torch.zeros(3, side, side, dtype=torch.uint8)))
    except (TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError) as error:
        raise UserError(f"data.augment: {name} refuses {dict(options)}: {error}") from None
    if any(image.shape != (3, side, side) or image.dtype != torch.uint8 for image in tried):
        raise UserError(f"data.augment: {name} with {dict(options)} changes the size or kind of images")
