"""Batches: whole tensors cut from the uint8 arrays, augmented, stamped and normalised on the model's device.

Letters: N images, B batch, C classes, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dataset.augment import draw_view, generator
from dataset.images import Batch
from dataset.prepare import TrainingData


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
    others = data.other_cues(view)
    for step in range(steps_per_epoch(num_images, batch_size)):
        indices = order[step * batch_size : (step + 1) * batch_size][rank::world_size]
        images = data.train.augmented(indices, drawn)
        counterfactual = None if others is None else data.train.augmented(indices, drawn, others)
        indices = indices.to(data.train.device)
        yield Batch(images, data.train.labels[indices], indices, view, counterfactual)


def view_batches(
    data: TrainingData, view: int, batch_size: int, first: int = 0, for_teacher: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Indices (B,) and images (B, 3, S, S) of a view from image `first` on, in the order of the data set.

    for_teacher: as `Batch.for_teacher`, in place of what the student sees.
    """
    train, settings = data.train, data.settings
    others = data.other_cues(view) if for_teacher else None
    drawn = draw_view(settings.seed, view, len(train), settings.crop, settings.flip)
    for start in range(first, len(train), batch_size):
        indices = torch.arange(start, min(start + batch_size, len(train)))
        yield indices, train.augmented(indices, drawn, others)


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
