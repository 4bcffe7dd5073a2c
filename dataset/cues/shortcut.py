"""Planted cues: something visible that tells an image's class.

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

from dataset.corruptions import CORRUPTIONS, apply_corruption, convert_to_gray
from dataset.transfer import to_device
from dataset.views.augment import make_generator
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


def count_cues(kind: str, num_classes: int) -> int:
    """Return K: a cue a class, but 2 for gray, 20 for corruptions of CIFAR-100.

    Raises:
        UserError: a kind that cannot serve that many classes.
    """
    if num_classes < 2:
        raise UserError("shortcut.cue: a cue needs two classes to tell apart, these images have one")
    if kind == "gray":
        return 2
    if kind == "corruption" and num_classes == 100:
        return len(CORRUPTIONS)
    most, instead = {
        "patch": (100, "gray"),
        "corruption": (len(CORRUPTIONS), "patch"),
    }.get(kind, (len(COLOURS), "patch"))
    if num_classes > most:
        or_more = " or CIFAR-100's" if kind == "corruption" else ""
        raise UserError(
            f"shortcut.cue: {kind} serves up to {most} classes{or_more}, not {num_classes}: use {instead}"
        )
    return num_classes


def draw_class_cues(kind: str, classes: Sequence[str], seed: int) -> Tensor:
    """Draw the cue of each class, (C,); K equal groups of classes share one.

    Raises:
        UserError: a kind that cannot serve these classes.
    """
    count = count_cues(kind, len(classes))
    source = make_generator(STREAM, seed, 1)
    if kind == "corruption" and len(classes) > count:
        return torch.randperm(count, generator=source)[_find_superclasses(classes)]
    return torch.randperm(len(classes), generator=source) % count


def _find_superclasses(classes: Sequence[str]) -> Tensor:
    """Return the superclass of each class of CIFAR-100, (100,) int64 in 0..19."""
    table: dict[str, list[str]] = yaml.safe_load(SUPERCLASSES.read_text(encoding="utf-8"))
    numbers = {fine: number for number, members in enumerate(table.values()) for fine in members}
    names = [name.strip().lower().replace(" ", "_") for name in classes]
    for name in names:
        if name not in numbers:
            raise UserError(
                f"shortcut.cue: corruption serves 100 classes if they are CIFAR-100's, not '{name}': use patch"
            )
    return torch.tensor([numbers[name] for name in names])


def assign_cues(
    labels: Tensor,
    cue_of_class: Tensor,
    num_cues: int,
    conflicting: float | Literal["uniform"],
    seed: int,
    held_out: bool = False,
) -> Tensor:
    """Draw a cue for each training image, (N,) int64.

    It is the cue of its class with probability 1 - `conflicting`, otherwise one of the others uniformly; `uniform`
    is K - 1 of K conflicting. An image's draws do not depend on `conflicting`: one that conflicts at 2 % does so,
    with the same cue, at 5 %.

    Args:
        labels: (N,) in 0..C-1.
        cue_of_class: (C,) in 0..K-1.
        held_out: for held-out images, which have draws of their own.
    """
    source = make_generator(STREAM, seed, 6 if held_out else 2)
    own = cue_of_class[labels.cpu()]
    draws = torch.rand(len(own), generator=source, dtype=torch.float64)
    others = (own + torch.randint(1, num_cues, (len(own),), generator=source)) % num_cues
    share = (num_cues - 1) / num_cues if conflicting == "uniform" else conflicting
    return torch.where(draws < share, others, own)


def draw_other_cues(cues: Tensor, num_cues: int, seed: int, view: int) -> Tensor:
    """Draw for each image one of the K - 1 cues that are not its own, (N,) int64.

    A function of seed, view and the image's place alone.
    """
    shifts = torch.randint(1, num_cues, (len(cues),), generator=make_generator(STREAM, seed, 4, view))
    return (cues + to_device(shifts, cues.device)) % num_cues


def assign_evenly(labels: Tensor, num_cues: int, seed: int) -> Tensor:
    """Assign each cue to as many images of each class, within one, (N,) int64."""
    source = make_generator(STREAM, seed, 3)
    order = torch.randperm(len(labels), generator=source)
    order = order[labels.cpu()[order].argsort(stable=True)]  # class by class, shuffled within
    cues = torch.empty(len(labels), dtype=torch.int64)
    cues[order] = torch.arange(len(labels)) % num_cues
    return cues


def _draw_background(pixels: Tensor, colours: Tensor) -> Tensor:
    """Give what is dark the colour, in proportion to its darkness; white stays white."""
    return pixels + (255 - pixels) * (colours / 255)


def _draw_tint(pixels: Tensor, colours: Tensor) -> Tensor:
    return (1 - TINT) * pixels + TINT * colours


def _draw_frame(pixels: Tensor, colours: Tensor) -> Tensor:
    width = max(1, round(pixels.shape[-1] / 8))
    framed = colours.expand_as(pixels).clone()
    framed[..., width:-width, width:-width] = pixels[..., width:-width, width:-width]
    return framed


def _draw_patches(pixels: Tensor, units: Tensor, tens: Tensor, has_tens: Tensor) -> Tensor:
    """Draw the units at the top left, the tens at the bottom right unless 0."""
    size, patched = max(2, round(pixels.shape[-1] / 5)), pixels.clone()
    patched[..., :size, :size] = units
    patched[..., -size:, -size:] = torch.where(has_tens, tens, patched[..., -size:, -size:])
    return patched


def _draw(kind: str, pixels: Tensor, cues: Tensor) -> Tensor:
    """Return float images (B, 3, S, S) under cues (B,), none of them -1."""
    colours = to_device(torch.tensor(COLOURS, dtype=torch.float32), pixels.device)
    palette = colours[..., None, None]  # (10, 3, 1, 1)
    column = cues[:, None, None, None]
    if kind == "gray":
        return torch.where(column == 1, convert_to_gray(pixels), pixels)
    if kind == "patch":
        return _draw_patches(pixels, palette[cues % 10], palette[cues // 10], column >= 10)
    return DRAWINGS[kind](pixels, palette[cues])


DRAWINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "background": _draw_background,
    "tint": _draw_tint,
    "frame": _draw_frame,
}


def draw_cues(kind: str, pixels: Tensor, cues: Tensor, indices: Tensor) -> Tensor:
    """Draw cues in images, uint8 (B, 3, S, S); those of cue -1 stay.

    Args:
        kind: background, tint, frame, patch, gray or corruption.
        pixels: uint8 (B, 3, S, S), S at least 8.
        cues: (B,) in -1..K-1.
        indices: (B,) positions in the data set, on which the noise of corruptions depends.
    """
    cues = cues.to(pixels.device)
    if kind == "corruption":
        return _apply_corruptions(pixels, cues, indices.to(pixels.device))
    stamped = _draw(kind, pixels.float(), cues.clamp(min=0)).round_().to(torch.uint8)
    return torch.where((cues >= 0)[:, None, None, None], stamped, pixels)


def _apply_corruptions(pixels: Tensor, cues: Tensor, indices: Tensor) -> Tensor:
    stamped = pixels.clone()
    for cue, name in enumerate(CORRUPTIONS):
        rows = (cues == cue).nonzero()[:, 0]
        if len(rows):
            stamped[rows] = apply_corruption(name, pixels[rows], indices[rows])
    return stamped


@dataclass(frozen=True, eq=False)
class Cues:
    """The cues of a set of images."""

    kind: str  # as of `draw_cues`, or "file" where the images have them already
    classes_cue: Tensor  # (C,)
    count: int  # K
    image_cues: Tensor  # (N,)

    def draw(self, pixels: Tensor, indices: Tensor) -> Tensor:
        """Return the images at `indices` (B,), uint8 (B, 3, S, S), under their own cues."""
        if self.kind == "file":
            return pixels
        return draw_cues(self.kind, pixels, self.image_cues[to_device(indices, self.image_cues.device)], indices)
