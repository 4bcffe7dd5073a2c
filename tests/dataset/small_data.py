"""Small random images as training data."""

from __future__ import annotations

import numpy as np
import torch

from dataset.files.decoded_cache import Images
from dataset.prepare import TrainingData, prepare
from dataset.sources import Source
from settings.images import Data, Shortcut


def make_images(count: int, side: int = 12, seed: int = 0) -> Images:
    """Return random images of three classes, whose labels come in turn."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 3, side, side)).astype(np.uint8)
    return Images(pixels, np.arange(count) % 3)


def make_data(train=60, val=0, test=9, side=12, shortcut=None, **options) -> TrainingData:
    """Return training data under a cue, with `options` of the config's data section."""
    images = train if isinstance(train, Images) else make_images(train, side)
    source = Source(images, make_images(val, side, seed=1), make_images(test, side, seed=2), ["a", "b", "c"])
    settings = Data(image_size=side, **({"crop": 2} | options))
    return prepare(source, settings, torch.device("cpu"), shortcut or Shortcut())


def list_parts(batches) -> list[tuple]:
    """Return all that a network sees of some batches as plain values."""
    parts = ("images", "labels", "indices", "targets", "teacher_images")
    return [tuple(getattr(batch, part).tolist() for part in parts) for batch in batches]
