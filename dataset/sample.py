"""A few images of files that are not decoded yet, in the place of all: for estimates that write nothing.

Letters: N images, B batch, S side in pixels.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from configs.images import Data
from dataset.class_folders import ClassFolders, ImageFile
from dataset.decode import decode_files
from dataset.decoded_cache import Images
from dataset.images import ImageTensors
from dataset.memory import see_that_images_fit
from dataset.prepare import TrainingData, prepare
from dataset.sources import Positions, Source, split_positions, undecoded
from dataset.stored_pixels import Pixels
from dataset.transforms import check_transforms
from errors import UserError

FEW, MOST = 8, 256  # images that are decoded first, and at most
SECONDS = 2.0  # for decoding them


class RepeatedImages(ImageTensors):
    """N images of which few are decoded: those stand for all in turn, each under its own label."""

    def __init__(self, few: ImageTensors, labels: Tensor) -> None:
        self.device, self.pixels, self.cues = few.device, few.pixels, few.cues
        self.mean, self.std = few.mean, few.std
        self.labels = labels.to(few.device)

    def raw(self, indices: Tensor) -> Tensor:
        """uint8 pixels (B, 3, S, S) that stand for the images at `indices` (B,)."""
        return super().raw(indices % len(self.pixels))


@dataclass(frozen=True)
class Decoding:
    """What decoding all images would take."""

    images: int
    tried: int  # images that were decoded to find out
    seconds_an_image: float
    bytes: int  # of all images decoded, in the cache
    more_memory: int  # bytes of those that are not in memory now


def sample(data: Data, device: torch.device) -> tuple[TrainingData, Decoding] | None:
    """As many images as a config names, few of them decoded; None where all are decoded already.

    Raises:
        UserError: as `dataset.sources.load_source`, of the images that are read and of what needs no reading.
    """
    check_transforms(data.augment, data.image_size)
    found = undecoded(data)
    if found is None:
        return None
    files = found.train + found.test
    see_that_images_fit(len(files), data.image_size)
    pixels, seconds = _some(files, data)
    labels = _split_labels(found, data)
    few = Images(pixels, np.arange(len(pixels)) % len(found.classes))
    prepared = prepare(Source(few, few.take(np.arange(0)), few, found.classes), data, device)
    train, val, test = (RepeatedImages(prepared.train, torch.from_numpy(part)) for part in labels)
    held_out = val if len(val) else None
    size = pixels[0].nbytes
    decoding = Decoding(
        len(files), len(pixels), seconds, len(files) * (size + 8), (len(files) - len(pixels)) * size
    )
    return replace(prepared, train=train, val=held_out, test=test, held_out=held_out), decoding


def _some(files: Sequence[ImageFile], data: Data) -> tuple[Pixels, float]:
    """Images from everywhere in a list, (B, 3, S, S), and the seconds that one takes."""

    def decode(count: int) -> tuple[Pixels, float]:
        chosen = np.linspace(0, len(files) - 1, min(count, len(files))).astype(int)
        begun = time.perf_counter()
        pixels = decode_files(
            [files[place].path for place in chosen], data.image_size, data.bit_depth, data.resize
        )
        return pixels, (time.perf_counter() - begun) / len(pixels)

    pixels, seconds = decode(FEW)
    more = min(MOST, int(SECONDS / seconds))
    return decode(more) if more > len(pixels) else (pixels, seconds)


def _split_labels(found: ClassFolders, data: Data) -> tuple[Positions, Positions, Positions]:
    """Labels of training, validation and test images, split as `load_source` does."""
    class_of = {name: number for number, name in enumerate(found.classes)}
    train, test = (np.array([class_of[image.label] for image in part]) for part in (found.train, found.test))
    if data.split is not None:
        pooled = np.concatenate([train, test.astype(np.int64)])
        train, test = (pooled[part] for part in split_positions(pooled, 1 - data.split, data.seed))
    elif len(test) == 0:
        raise UserError(
            f"data.root {data.root}: no test images (one tree of classes, or a list without them), set data.split"
        )
    val = train[:0]
    if data.val_fraction > 0:
        train, val = (train[part] for part in split_positions(train, data.val_fraction, data.seed))
    return train, val, test
