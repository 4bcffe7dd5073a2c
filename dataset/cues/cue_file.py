"""Cues that images have already, from a CSV file with the columns file,cue.

`file` is an image's path relative to data.root with forward slashes, `cue` any word. Other rows are ignored.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dataset.files.decoded_cache import Images
from dataset.files.image_list import read_rows
from dataset.sources import Source
from errors import UserError


def read_own_cues(path: Path, source: Source) -> tuple[list[Tensor], int]:
    """Read cues (N,) of training, validation and test images, and their number K.

    Cues are numbered in sorted order.

    Raises:
        UserError: images without file names, a file that is not such a CSV, an image without a row or with a cue
            that no training image has.
    """
    parts = (source.train, source.val, source.test)
    if any(part.names is None for part in parts):
        raise UserError("shortcut.cue: file needs images with file names, data.source: folder")
    cues = _read_cues(path)
    words = [_look_up(part, cues, path) for part in parts]
    known = sorted({*words[0], *words[1]})
    if len(known) < 2:
        raise UserError(f"{path}: all training images have the cue '{known[0]}', at least two are needed")
    for word in sorted({*words[2]} - {*known}):
        raise UserError(f"{path}: no training image has the cue '{word}' of a test image")
    numbers = {word: number for number, word in enumerate(known)}
    return [torch.tensor([numbers[word] for word in part], dtype=torch.int64) for part in words], len(known)


def _read_cues(path: Path) -> dict[str, str]:
    cues: dict[str, str] = {}
    for _, row in read_rows(path, "shortcut.file", ("file", "cue")):
        name, cue = row["file"], row["cue"].strip()
        if cues.setdefault(name, cue) != cue:
            raise UserError(f"{path}: {name} has the cue '{cues[name]}' in one row and '{cue}' in another")
    return cues


def _look_up(images: Images, cues: dict[str, str], path: Path) -> list[str]:
    assert images.names is not None
    for name in images.names:
        if not cues.get(str(name)):
            raise UserError(f"{path}: no cue for {name} (a path relative to data.root)")
    return [cues[str(name)] for name in images.names]


def find_frequent_cues(labels: Tensor, cues: Tensor, num_classes: int, num_cues: int) -> Tensor:
    """Return the most frequent cue of each class, (C,), the lower number of two."""
    counts = torch.bincount(labels.cpu() * num_cues + cues, minlength=num_classes * num_cues)
    return counts.view(num_classes, num_cues).argmax(dim=1)


def sample_balanced(labels: np.ndarray, cues: np.ndarray, num_cues: int, seed: int) -> np.ndarray:
    """Draw sorted positions of as many images of each cell of class and cue."""
    order = np.random.default_rng(seed % 2**64).permutation(len(labels))
    cells = (labels * num_cues + cues)[order]
    _, sizes = np.unique(cells, return_counts=True)
    kept = [order[cells == cell][: sizes.min()] for cell in np.unique(cells)]
    return np.sort(np.concatenate(kept))
