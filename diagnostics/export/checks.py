"""Exported files loaded again and set beside the model that they came from, on test images and on image files.

Letters: B images, C classes, H x W height and width of a picture, S side of the network's input in pixels.
"""

from __future__ import annotations

import runpy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from errors import MachineError
from models.export import REQUIREMENTS, FromPixels, Runner

TOLERANCE = 1e-3  # of logits, as a part of the largest one: rounding of float32 stays far below it
PIXEL_TOLERANCE = (
    2  # of 255: each of two passes may round otherwise, Pillow weighs in fixed point, a graph in float32
)


@dataclass(frozen=True)
class Checked:
    """One file beside the model; None where it was not written, and `note` says why."""

    file: str
    bytes: int | None
    difference: float | None  # largest |logit - the model's| of all images together
    difference_of_one: float | None  # the same of the first image alone
    agreement: float | None  # share of images that get the model's class
    note: str = ""


@dataclass(frozen=True)
class FilesChecked:
    """Image files as predict.py reads them beside the same images as this project decodes them."""

    count: int
    levels: int  # largest difference of a value in 0..255 of the resized picture
    difference: float  # of logits
    agreement: float


@dataclass(frozen=True)
class Reference:
    """What a model says of some test images, normalised as in evaluation."""

    pixels: Tensor  # (B, 3, S, S) uint8
    logits: Tensor  # (B, C)
    of_one: Tensor  # (1, C) of the first image alone


@torch.no_grad()
def check(path: Path, run: Runner, reference: Reference) -> Checked:
    """Compare what a file computes, loaded from it as `run`, with the model.

    Raises:
        MachineError: it computes something else.
    """
    given, pixels = run(reference.pixels), reference.pixels
    difference, of_one = largest(given, reference.logits), largest(run(pixels[:1]), reference.of_one)
    if not max(difference, of_one) <= TOLERANCE * max(1.0, reference.logits.abs().max().item()):
        raise MachineError(
            f"{path.name} gives logits that differ from the model's by {max(difference, of_one):.2g}: nothing is "
            f"written, try other versions of the packages in {REQUIREMENTS}"
        )
    return Checked(path.name, path.stat().st_size, difference, of_one, agreement(given, reference.logits))


@torch.no_grad()
def check_files(
    script: Path, graph: str, files: Sequence[Path], model: FromPixels, reference: Reference
) -> FilesChecked:
    """Have predict.py read and classify image files, and compare with the model on the same images.

    Args:
        script: predict.py where it was written.
        graph: the file beside it that classifies.
        files: those of the first images of `reference`.
        model: where the graph came from.
        reference: of the images as this project decodes them.

    Raises:
        MachineError: they are read differently.
    """
    shipped = runpy.run_path(str(script))  # which leaves no compiled file beside it
    classify = shipped["open_model"](graph)
    read = [shipped["read"](str(file)) for file in files]  # (1, 3, H, W) each
    resized = torch.cat([model.resized(torch.from_numpy(picture)) for picture in read])  # (B, 3, S, S)
    levels = int((resized - reference.pixels[: len(files)].float()).abs().max())
    if levels > PIXEL_TOLERANCE:
        raise MachineError(
            f"{script.name} reads image files otherwise than the run did, by {levels} of 255: nothing is written, "
            "report it as a fault of the export"
        )
    given = torch.from_numpy(np.concatenate([classify(picture) for picture in read]))
    wanted = reference.logits[: len(files)]
    return FilesChecked(len(files), levels, largest(given, wanted), agreement(given, wanted))


def largest(given: Tensor, wanted: Tensor) -> float:
    """The largest |difference| of two tensors of one shape."""
    return (given - wanted).abs().max().item()


def agreement(first: Tensor, second: Tensor) -> float:
    """Share in 0..1 of logits (B, C) with the largest in the same place."""
    return (first.argmax(dim=1) == second.argmax(dim=1)).double().mean().item()
