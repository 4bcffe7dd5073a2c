"""Planted cues: something visible in an image that tells its class without showing it.

A kind has K cues, numbered from 0; a map gives each class its cue. An image is aligned when it shows the cue of
its class and conflicting when it shows another; cue -1 is none. Colours follow Colored MNIST and corruptions
Corrupted CIFAR-10 (both Nam et al., NeurIPS 2020), the gray bit CIFAR-10S (Wang et al., CVPR 2020).

Letters: N images of a set, B batch, C classes, K cues, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import yaml
from torch import Tensor

from dataset.cues.corruptions import CORRUPTIONS, corrupt, gray
from dataset.transfer import to_device
from dataset.views.augment import generator
from errors import UserError

COLOURS = (
    (205, 30, 40),  # red
    (25, 140, 45),  # green
    (35, 60, 215),  # blue
    (200, 175, 0),  # yellow
    (200, 40, 185),  # magenta
    (0, 165, 185),  # cyan
    (225, 105, 20),  # orange
    (95, 25, 130),  # purple
    (105, 65, 35),  # brown
    (120, 125, 130),  # gray
)
TINT = 0.35  # share of the colour in a tinted image
SUPERCLASSES = Path(__file__).with_name("cifar100_superclasses.yaml")
STREAM = 0x5C07  # keeps the draws below apart from those of views and batches


def number_of_cues(kind: str, num_classes: int) -> int:
    """K: one cue a class, except for gray (2) and the corruptions of CIFAR-100's superclasses (20).

    Raises:
        UserError: a kind that cannot serve that many classes.
    """
    if num_classes < 2:
        raise UserError("shortcut.cue: a cue needs two classes to tell apart, these images have one")
    if kind == "gray":
        return 2
    if kind == "patch" and num_classes > 100:
        raise UserError(f"shortcut.cue: patch serves up to 100 classes, not {num_classes}: use gray")
    if kind == "corruption" and num_classes > len(CORRUPTIONS):
        if num_classes != 100:
            raise UserError(
                f"shortcut.cue: corruption serves up to 20 classes or CIFAR-100's, not {num_classes}: use patch"
            )
        return 20
    if kind in ("background", "tint", "frame") and num_classes > len(COLOURS):
        raise UserError(f"shortcut.cue: {kind} serves up to 10 classes, not {num_classes}: use patch")
    return num_classes


def cue_of_class(kind: str, classes: Sequence[str], seed: int) -> Tensor:
    """The cue of each class, (C,) int64, permuted by the seed; K groups of classes of the same size share one.

    Raises:
        UserError: a kind that cannot serve these classes.
    """
    count = number_of_cues(kind, len(classes))
    source = generator(STREAM, seed, 1)
    if kind == "corruption" and len(classes) > count:
        return torch.randperm(count, generator=source)[_superclasses(classes)]
    return torch.randperm(len(classes), generator=source) % count


def _superclasses(classes: Sequence[str]) -> Tensor:
    """The superclass of each class of CIFAR-100, (100,) int64 in 0..19."""
    table: dict[str, list[str]] = yaml.safe_load(SUPERCLASSES.read_text(encoding="utf-8"))
    superclass_of = {fine: number for number, members in enumerate(table.values()) for fine in members}
    names = [name.strip().lower().replace(" ", "_") for name in classes]
    strange = [name for name in names if name not in superclass_of]
    if strange:
        raise UserError(
            f"shortcut.cue: corruption serves 100 classes if they are CIFAR-100's, not '{strange[0]}': use patch"
        )
    return torch.tensor([superclass_of[name] for name in names])


def assign(
    labels: Tensor,
    cue_of_class: Tensor,
    num_cues: int,
    conflicting: float | Literal["uniform"],
    seed: int,
    held_out: bool = False,
) -> Tensor:
    """A cue for each training image, (N,) int64, once and for all.

    It is the cue of its class with probability 1 - `conflicting`, otherwise one of the others uniformly; `uniform`
    is K - 1 of K conflicting. An image's draws do not depend on `conflicting`: one that conflicts at 2 % does so,
    with the same cue, at 5 %.

    Args:
        labels: (N,) in 0..C-1.
        cue_of_class: (C,) in 0..K-1.
        held_out: for held-out images, whose draws are others.
    """
    source = generator(STREAM, seed, 6 if held_out else 2)
    own = cue_of_class[labels.cpu()]
    draws = torch.rand(len(own), generator=source, dtype=torch.float64)
    others = (own + torch.randint(1, num_cues, (len(own),), generator=source)) % num_cues
    share = (num_cues - 1) / num_cues if conflicting == "uniform" else conflicting
    return torch.where(draws < share, others, own)


def counterfactual(cues: Tensor, num_cues: int, seed: int, view: int) -> Tensor:
    """Another cue for each image than its own of `cues` (N,), uniformly one of the K - 1 others, (N,) int64.

    A function of seed, view and the image's place alone.
    """
    shifts = torch.randint(1, num_cues, (len(cues),), generator=generator(STREAM, seed, 4, view))
    return (cues + to_device(shifts, cues.device)) % num_cues


def balance(labels: Tensor, num_cues: int, seed: int) -> Tensor:
    """Cues (N,) int64 such that each class has each cue equally often, within one, in a random order."""
    source = generator(STREAM, seed, 3)
    order = torch.randperm(len(labels), generator=source)
    order = order[labels.cpu()[order].argsort(stable=True)]  # class by class, shuffled within
    cues = torch.empty(len(labels), dtype=torch.int64)
    cues[order] = torch.arange(len(labels)) % num_cues
    return cues


def _background(pixels: Tensor, cues: Tensor) -> Tensor:
    """What is dark takes the colour, in proportion to its darkness; white stays white."""
    colours = _palette(pixels)[cues][:, :, None, None]
    return pixels + (255 - pixels) * (colours / 255)


def _tint(pixels: Tensor, cues: Tensor) -> Tensor:
    return (1 - TINT) * pixels + TINT * _palette(pixels)[cues][:, :, None, None]


def _frame(pixels: Tensor, cues: Tensor) -> Tensor:
    side = pixels.shape[-1]
    width = max(1, round(side / 8))
    framed = _palette(pixels)[cues][:, :, None, None].repeat(1, 1, side, side)
    framed[..., width:-width, width:-width] = pixels[..., width:-width, width:-width]
    return framed


def _patch(pixels: Tensor, cues: Tensor) -> Tensor:
    """The units are the colour at the top left, the tens that at the bottom right, where 0 is no second patch."""
    palette, size = _palette(pixels), max(2, round(pixels.shape[-1] / 5))
    patched = pixels.clone()
    patched[..., :size, :size] = palette[cues % 10][:, :, None, None]
    corner = patched[..., -size:, -size:]
    second = palette[cues // 10][:, :, None, None]
    patched[..., -size:, -size:] = torch.where((cues >= 10)[:, None, None, None], second, corner)
    return patched


def _gray(pixels: Tensor, cues: Tensor) -> Tensor:
    return torch.where((cues == 1)[:, None, None, None], gray(pixels), pixels)


def _palette(pixels: Tensor) -> Tensor:
    return to_device(torch.tensor(COLOURS, dtype=torch.float32), pixels.device)  # (10, 3)


PAINTED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "background": _background,
    "tint": _tint,
    "frame": _frame,
    "patch": _patch,
    "gray": _gray,
}


def stamp(kind: str, pixels: Tensor, cues: Tensor, indices: Tensor) -> Tensor:
    """Images with their cues, uint8 (B, 3, S, S) on the device of `pixels`; those of cue -1 are left as they are.

    Args:
        kind: a key of `PAINTED`, or "corruption".
        pixels: uint8 (B, 3, S, S), S at least 8.
        cues: (B,) in -1..K-1.
        indices: (B,) positions in the data set, on which the noise of corruptions depends.
    """
    cues = cues.to(pixels.device)
    if kind == "corruption":
        return _corrupted(pixels, cues, indices.to(pixels.device))
    stamped = PAINTED[kind](pixels.float(), cues.clamp(min=0)).round_().to(torch.uint8)
    return torch.where((cues >= 0)[:, None, None, None], stamped, pixels)


def _corrupted(pixels: Tensor, cues: Tensor, indices: Tensor) -> Tensor:
    stamped = pixels.clone()
    for cue, name in enumerate(CORRUPTIONS):
        rows = (cues == cue).nonzero()[:, 0]
        if len(rows):
            stamped[rows] = corrupt(name, pixels[rows], indices[rows])
    return stamped


@dataclass(frozen=True, eq=False)
class Cues:
    """The cues of a set of images."""

    kind: str  # a key of PAINTED, "corruption", or "file" where the images have them already
    classes_cue: Tensor  # (C,)
    count: int  # K
    of_image: Tensor  # (N,)

    def stamp(self, pixels: Tensor, indices: Tensor) -> Tensor:
        """The images at `indices` (B,), uint8 (B, 3, S, S), under their own cues."""
        if self.kind == "file":
            return pixels
        return stamp(self.kind, pixels, self.of_image[to_device(indices, self.of_image.device)], indices)
