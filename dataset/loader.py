"""Batches: whole tensors cut from the uint8 arrays, augmented and normalised on the model's device.

Letters: N images, B batch, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from config import Data
from dataset.augment import apply_view, draw_view, generator, normalise
from dataset.sources import Images, Source


@dataclass(frozen=True)
class Batch:
    """Some images as a network sees them."""

    images: Tensor  # (B, 3, S, S) float32, normalised
    labels: Tensor  # (B,)
    indices: Tensor  # (B,) positions in the data set
    view: int  # number of the view the images were made by, -1 for none


class ImageTensors:
    """Labelled uint8 images as tensors, with the normalisation of their data set.

    Pixels move to the model's device once where they fit into a quarter of its free memory; otherwise each
    batch does.
    """

    def __init__(self, images: Images, mean: Tensor, std: Tensor, device: torch.device) -> None:
        self.device = device
        self.pixels = torch.from_numpy(images.pixels)
        if device.type == "cuda" and self.pixels.nbytes < torch.cuda.mem_get_info(device)[0] / 4:
            self.pixels = self.pixels.to(device)
        self.labels = torch.from_numpy(images.labels).to(device)
        self.mean, self.std = mean.to(device), std.to(device)

    def __len__(self) -> int:
        return len(self.labels)

    def raw(self, indices: Tensor) -> Tensor:
        """uint8 pixels (B, 3, S, S) of `indices` (B,) on the model's device."""
        return self.pixels[indices.to(self.pixels.device)].to(self.device, non_blocking=True)

    def normalised(self, indices: Tensor) -> Tensor:
        """Images (B, 3, S, S) float32 of `indices` (B,), not augmented."""
        return normalise(self.raw(indices), self.mean, self.std)

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """All images in order, not augmented; the last batch may be smaller."""
        for indices in torch.arange(len(self), device=self.device).split(batch_size):
            yield Batch(self.normalised(indices), self.labels[indices], indices, -1)


@dataclass(frozen=True)
class TrainingData:
    """What a phase trains and measures on."""

    train: ImageTensors
    val: ImageTensors | None
    test: ImageTensors
    classes: list[str]
    fingerprint: str
    settings: Data
    mean: Tensor
    std: Tensor

    @property
    def num_classes(self) -> int:
        return len(self.classes)


def prepare(source: Source, settings: Data, device: torch.device) -> TrainingData:
    """Tensors of a source, normalised by the config's mean and deviation or those of its training images."""
    mean, std = channel_statistics(source.train.pixels)
    mean = mean if settings.mean is None else torch.tensor(settings.mean)
    std = std if settings.std is None else torch.tensor(settings.std)
    train, val, test = (ImageTensors(part, mean, std, device) for part in (source.train, source.val, source.test))
    return TrainingData(
        train, val if len(val) else None, test, source.classes, source.fingerprint, settings, mean, std
    )


def channel_statistics(pixels: np.ndarray, chunk: int = 4096) -> tuple[Tensor, Tensor]:
    """Mean and deviation (3,) in 0..1 of uint8 images (N, 3, S, S), over all their pixels, by histograms."""
    counts = np.zeros((3, 256), dtype=np.int64)
    for start in range(0, len(pixels), chunk):
        for channel in range(3):
            counts[channel] += np.bincount(pixels[start : start + chunk, channel].reshape(-1), minlength=256)
    values = np.arange(256) / 255
    share = counts / counts.sum(axis=1, keepdims=True)
    mean = share @ values
    std = np.sqrt((share * (values - mean[:, None]) ** 2).sum(axis=1))
    std = np.where(std > 0, std, 1.0)  # a constant channel carries nothing, leave it at zero
    return torch.tensor(mean, dtype=torch.float32), torch.tensor(std, dtype=torch.float32)


def steps_per_epoch(num_images: int, batch_size: int) -> int:
    """Whole batches in an epoch; what is left over is dropped, and a batch is never larger than the data."""
    return num_images // min(batch_size, num_images)


def training_batches(
    data: TrainingData, batch_size: int, seed: int, epoch: int, view: int, rank: int = 0, world_size: int = 1
) -> Iterator[Batch]:
    """One epoch of augmented batches; order is a function of (seed, epoch), pixels of (data.seed, view).

    Of each global batch a process gets every `world_size`-th image, starting at `rank`.
    """
    num_images = len(data.train)
    batch_size = min(batch_size, num_images)
    order = torch.randperm(num_images, generator=generator(seed, epoch))
    drawn = draw_view(data.settings.seed, view, num_images, data.settings.crop, data.settings.flip)
    for step in range(steps_per_epoch(num_images, batch_size)):
        indices = order[step * batch_size : (step + 1) * batch_size][rank::world_size]
        pixels = apply_view(data.train.raw(indices), indices, drawn)
        indices = indices.to(data.train.device)
        images = normalise(pixels, data.train.mean, data.train.std)
        yield Batch(images, data.train.labels[indices], indices, view)
