"""Compare exported files, loaded again, with the model that they came from.

Letters: B images, C classes, H x W height and width of a picture, S side of the network's input in pixels.
"""

from __future__ import annotations

import runpy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dataset.files.class_folders import FORMATS
from dataset.files.decode import DEPTHS
from dataset.sources import FILES, Source, load_source
from errors import MachineError
from models.export import REQUIREMENTS, FromPixels, Runner
from settings.images import Data

TOLERANCE = 1e-3  # of the largest logit: rounding of float32 stays far below it
PIXEL_TOLERANCE = 2  # of 255: Pillow resizes in fixed point, a graph in float32, each in two passes


@dataclass(frozen=True)
class CheckedFile:
    """A file compared with the model; None where it was not written, and `note` says why."""

    file: str
    bytes: int | None = None
    difference: float | None = None  # largest |logit - the model's|, of all images together and of one alone
    agreement: float | None = None  # share of images that get the model's class
    note: str = ""


@dataclass(frozen=True)
class CheckedScript:
    """Image files read by predict.py, compared with the same images as this project decodes them."""

    count: int
    levels: int  # largest difference in the resized picture, in 0..255
    difference: float  # of logits
    agreement: float


@dataclass(frozen=True)
class Reference:
    """The model's answers to test images that were normalised as in evaluation."""

    pixels: Tensor  # (B, 3, S, S) uint8
    logits: Tensor  # (B, C)
    single: Tensor  # (1, C), of the first image alone


@torch.no_grad()
def check_file(path: Path, run: Runner, reference: Reference) -> CheckedFile:
    """Compare an exported file, loaded from `path` as `run`, with the model.

    Raises:
        MachineError: it computes something else.
    """
    logits, single = run(reference.pixels), run(reference.pixels[:1])
    expected = torch.cat([reference.logits, reference.single])
    difference = _measure_difference(torch.cat([logits, single]), expected)
    if not difference <= TOLERANCE * max(1.0, reference.logits.abs().max().item()):
        raise MachineError(
            f"{path.name} gives logits that differ from the model's by {difference:.2g}: nothing is written, "
            f"try other versions of the packages in {REQUIREMENTS}"
        )
    return CheckedFile(path.name, path.stat().st_size, difference, measure_agreement(logits, reference.logits))


@torch.no_grad()
def check_script(
    script: Path, graph: str, files: Sequence[Path], model: FromPixels, reference: Reference
) -> CheckedScript:
    """Compare the exported predict.py, on image files, with the model.

    Args:
        script: predict.py in the folder of the export.
        graph: name of the file beside it that classifies.
        files: image files, in the order of `reference`.
        model: the source of the graph.
        reference: of the same images as this project decodes them.

    Raises:
        MachineError: the script reads the files differently.
    """
    shipped = runpy.run_path(str(script))  # leaves no compiled file beside it
    classify = shipped["load_model"](str(script.parent / graph))
    pictures = [shipped["read_image"](str(file)) for file in files]  # (1, 3, H, W) each
    resized = torch.cat([model.resize(torch.from_numpy(picture)) for picture in pictures])  # (B, 3, S, S)
    levels = int((resized - reference.pixels.float()).abs().max())
    if levels > PIXEL_TOLERANCE:
        raise MachineError(
            f"{script.name} reads image files otherwise than the run did, by {levels} of 255: nothing is written, "
            "report it as a fault of the export"
        )
    logits = torch.from_numpy(np.concatenate([classify(picture) for picture in pictures]))
    difference = _measure_difference(logits, reference.logits)
    return CheckedScript(len(files), levels, difference, measure_agreement(logits, reference.logits))


def measure_agreement(first: Tensor, second: Tensor) -> float:
    """Return the share in 0..1 of logits (B, C) with the largest in the same place."""
    return (first.argmax(dim=1) == second.argmax(dim=1)).double().mean().item()


def _measure_difference(first: Tensor, second: Tensor) -> float:
    return (first - second).abs().max().item()


def find_files(data: Data, positions: Sequence[int]) -> tuple[Source, list[Path]] | None:
    """Return source and files of test images; None if they are no files."""
    if data.source not in FILES or data.root is None:
        return None
    source = load_source(data)  # decoded before: read from the cache
    if source.test.names is None:
        return None
    files = [data.folder / str(source.test.names[position]) for position in positions]
    return (source, files) if all(file.is_file() for file in files) else None  # a name may not be UTF-8


def find_bit_depth(data: Data, source: Source, sample: Sequence[Path]) -> int | None:
    """Return the bits in use of 16-bit grey files, as the decoder finds them.

    sample: files to look at first, so that a folder without such files is not read whole.
    """
    if data.bit_depth is not None or not any(_is_deep(file) for file in sample):
        return data.bit_depth
    parts = (source.train, source.val, source.test)
    files = [data.folder / str(name) for part in parts if part.names is not None for name in part.names]
    brightest = max(_find_brightest(file) for file in files if file.is_file() and _is_deep(file))
    return next(bits for bits in DEPTHS if brightest < 2**bits)


def _is_deep(file: Path) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of size: these files were decoded before
        with Image.open(file, formats=FORMATS) as image:
            return image.mode.startswith("I;16")


def _find_brightest(file: Path) -> int:
    with Image.open(file, formats=FORMATS) as image:
        return int(np.asarray(image).max())
