"""Batches: whole tensors cut from the uint8 arrays, augmented, stamped and normalised on the model's device.

Letters: N images, B batch, C classes, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import tee

import torch
from torch import Tensor

from dataset.images import Batch
from dataset.prepare import TrainingData
from dataset.transfer import to_device
from dataset.views.augment import View, draw_view, generator
from dataset.views.mix import Mix, draw_cutmix, draw_mixup, draw_squares, erase
from dataset.views.prefetch import made_ahead
from dataset.views.transforms import Transforms, build_transforms


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
    steps = range(first, steps_per_epoch(num_images, batch_size))
    own, settings = slice(rank, None, world_size), data.settings
    key = settings.strength, seed, epoch  # of what is mixed or erased, with the step

    def whole(step: int) -> Tensor:
        return order[step * batch_size : (step + 1) * batch_size]

    def mix_of(step: int) -> Mix | None:
        if settings.mix == "cutmix":
            return draw_cutmix(batch_size, data.train.side, *key, step)
        return draw_mixup(batch_size, *key, step) if settings.mix == "mixup" else None

    def wanted() -> Iterator[Tensor]:
        for step in steps:
            yield whole(step)[own]
            if (mix := mix_of(step)) is not None:
                yield whole(step)[mix.partners][own]

    batches = _cut(data, view, wanted())
    for step in steps:
        batch = next(batches)
        if (mix := mix_of(step)) is not None:
            batch = mixed(mix, batch, next(batches), data.num_classes)
        elif settings.mix == "erasing":
            squares = draw_squares(batch_size, data.train.side, *key, step)[own]
            batch = batch.seen_through(partial(erase, squares=squares))
        yield batch


def _cut(data: TrainingData, view: int, wanted: Iterator[Tensor]) -> Iterator[Batch]:
    """Batches of the training images at each of some indices (B,), as student and teacher see a view of them."""
    train, others = data.train, data.other_cues(view)
    for indices, pixels in _viewed(data, view, wanted):
        images = train.finished(pixels, indices)
        counterfactual = None if others is None else train.finished(pixels, indices, others)
        there = to_device(indices, train.device)
        yield Batch(images, train.labels[there], there, view, counterfactual, places=indices)


def _viewed(data: TrainingData, view: int, wanted: Iterator[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Each of some indices (B,) and its uint8 pixels (B, 3, S, S) under a view, on the model's device.

    Where the config has workers, they make the next ones meanwhile.
    """
    train, drawn, workers = data.train, view_of(data, view), data.settings.workers
    if not data.uses_workers:
        for indices in wanted:
            yield indices, train.viewed(indices, drawn)
        return
    wanted, asked = tee(wanted)
    ahead = made_ahead(train.pixels, drawn, asked, workers, train.device.type == "cuda")
    for indices, pixels in zip(wanted, ahead, strict=True):
        yield indices, pixels.to(train.device, non_blocking=True)


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
    others = data.other_cues(view) if for_teacher else None
    wanted = torch.arange(first, len(data.train)).split(batch_size)
    for indices, pixels in _viewed(data, view, iter(wanted if first < len(data.train) else ())):
        yield indices, data.train.finished(pixels, indices, others)


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
    there = to_device(order, labels.device)
    nothing = torch.empty(0, device=labels.device)
    for step in range(first, steps_per_epoch(num_images, batch_size)):
        places, indices = (
            part[step * batch_size : (step + 1) * batch_size][rank::world_size] for part in (order, there)
        )
        yield Batch(nothing, labels[indices], indices, view, places=places)
