"""Batches: whole tensors cut from the uint8 arrays, augmented, stamped and normalised on the model's device.

Letters: N images, B batch, C classes, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from dataset.augment import View, draw_view, generator
from dataset.images import Batch
from dataset.mix import Mix, draw_cutmix, draw_mixup, draw_squares, erase
from dataset.prepare import TrainingData
from dataset.transforms import Transforms, build_transforms


def steps_per_epoch(num_images: int, batch_size: int) -> int:
    """Whole batches in an epoch; what is left over is dropped, and a batch is never larger than the data."""
    return num_images // min(batch_size, num_images)


def training_batches(
    data: TrainingData,
    batch_size: int,
    seed: int,
    epoch: int,
    view: int,
    rank: int = 0,
    world_size: int = 1,
    first: int = 0,
) -> Iterator[Batch]:
    """One epoch of augmented batches; order is a function of (seed, epoch), pixels of (data.seed, view), and
    what is mixed or erased of (seed, epoch, step).

    Of each global batch a process gets every `world_size`-th image, starting at `rank`. What comes before the
    step `first` is not made.
    """
    num_images = len(data.train)
    batch_size = min(batch_size, num_images)
    order = torch.randperm(num_images, generator=generator(seed, epoch))
    cut = cutter(data, view)
    for step in range(first, steps_per_epoch(num_images, batch_size)):
        whole = order[step * batch_size : (step + 1) * batch_size]
        own = slice(rank, None, world_size)
        match data.settings.mix:
            case "none":
                yield cut(whole[own])
            case "mixup" | "cutmix":
                key = data.settings.strength, seed, epoch, step
                cuts = data.settings.mix == "cutmix"
                mix = draw_cutmix(len(whole), data.train.side, *key) if cuts else draw_mixup(len(whole), *key)
                yield mixed(mix, cut(whole[own]), cut(whole[mix.partners][own]), data.num_classes)
            case "erasing":
                strength = data.settings.strength
                squares = draw_squares(len(whole), data.train.side, strength, seed, epoch, step)[own]
                yield cut(whole[own]).seen_through(partial(erase, squares=squares))


def cutter(data: TrainingData, view: int) -> Callable[[Tensor], Batch]:
    """Cuts a batch of the training images at some indices (B,), as student and teacher see this view of them."""
    train, others, drawn = data.train, data.other_cues(view), view_of(data, view)

    def cut(indices: Tensor) -> Batch:
        images = train.augmented(indices, drawn)
        counterfactual = None if others is None else train.augmented(indices, drawn, others)
        indices = indices.to(train.device)
        return Batch(images, train.labels[indices], indices, view, counterfactual)

    return cut


def view_of(data: TrainingData, view: int) -> View:
    """What a view does to every training image, by the config's crop, flip and augment."""
    settings = data.settings
    drawn = draw_view(settings.seed, view, len(data.train), settings.crop, settings.flip)
    if not settings.augment:
        return drawn
    steps = build_transforms(settings.augment, data.train.side)
    return replace(drawn, change=Transforms(steps, settings.seed, view))


def mixed(mix: Mix, own: Batch, others: Batch, num_classes: int) -> Batch:
    """Images and labels of `own` with those of `others` mixed in, at the places of `own`."""
    classes = torch.arange(num_classes, device=own.labels.device)
    shares = mix.labels(*((batch.labels[:, None] == classes).float() for batch in (own, others)))
    counterfactual = None if own.counterfactual is None else mix(own.for_teacher, others.for_teacher)
    images = mix(own.images, others.images)
    return replace(own, images=images, counterfactual=counterfactual, shares=shares)


def view_batches(
    data: TrainingData, view: int, batch_size: int, first: int = 0, for_teacher: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Indices (B,) and images (B, 3, S, S) of a view from image `first` on, in the order of the data set.

    for_teacher: as `Batch.for_teacher`, in place of what the student sees.
    """
    cut = view_cutter(data, view, for_teacher)
    for start in range(first, len(data.train), batch_size):
        indices = torch.arange(start, min(start + batch_size, len(data.train)))
        yield indices, cut(indices)


def view_cutter(data: TrainingData, view: int, for_teacher: bool = False) -> Callable[[Tensor], Tensor]:
    """Makes the images (B, 3, S, S) of a view at some indices (B,).

    for_teacher: as `Batch.for_teacher`, in place of what the student sees.
    """
    train, drawn = data.train, view_of(data, view)
    others = data.other_cues(view) if for_teacher else None
    return lambda indices: train.augmented(indices, drawn, others)


def imageless_batches(
    data: TrainingData,
    batch_size: int,
    seed: int,
    epoch: int,
    view: int,
    rank: int = 0,
    world_size: int = 1,
    first: int = 0,
) -> Iterator[Batch]:
    """`training_batches` with the same labels and indices in the same order, but no images."""
    num_images, labels = len(data.train), data.train.labels
    batch_size = min(batch_size, num_images)
    order = torch.randperm(num_images, generator=generator(seed, epoch))
    there = order.to(labels.device)
    nothing = torch.empty(0, device=labels.device)
    for step in range(first, steps_per_epoch(num_images, batch_size)):
        places, indices = (
            part[step * batch_size : (step + 1) * batch_size][rank::world_size] for part in (order, there)
        )
        yield Batch(nothing, labels[indices], indices, view, places=places)
