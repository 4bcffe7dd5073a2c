"""Batches beside those of `dataset/loader.py`: a view's images in order, and training batches without images."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dataset.augment import draw_view, generator
from dataset.loader import Batch, TrainingData, steps_per_epoch


def view_batches(
    data: TrainingData, view: int, batch_size: int, first: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Indices (B,) and images (B, 3, S, S) of a view from image `first` on, in the order of the data set."""
    train, settings = data.train, data.settings
    drawn = draw_view(settings.seed, view, len(train), settings.crop, settings.flip)
    for start in range(first, len(train), batch_size):
        indices = torch.arange(start, min(start + batch_size, len(train)))
        yield indices, train.augmented(indices, drawn)


def imageless_batches(
    data: TrainingData, batch_size: int, seed: int, epoch: int, view: int, rank: int = 0, world_size: int = 1
) -> Iterator[Batch]:
    """`training_batches` with the same labels and indices in the same order, but no images."""
    num_images, labels = len(data.train), data.train.labels
    batch_size = min(batch_size, num_images)
    order = torch.randperm(num_images, generator=generator(seed, epoch)).to(labels.device)
    nothing = torch.empty(0, device=labels.device)
    for step in range(steps_per_epoch(num_images, batch_size)):
        indices = order[step * batch_size : (step + 1) * batch_size][rank::world_size]
        yield Batch(nothing, labels[indices], indices, view)
