"""Batches: cut from uint8 arrays, augmented, stamped, normalised on the device.

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
from dataset.views.augment import Augmentation, draw_view, make_generator
from dataset.views.mix import Mix, draw_cutmix, draw_mixup, draw_squares, mask_squares
from dataset.views.prefetch import prefetch_views
from dataset.views.transforms import Transforms, build_transforms


def count_batches(num_images: int, batch_size: int) -> int:
    """Count the whole batches in an epoch; a batch is never larger than the data."""
    return num_images // min(batch_size, num_images)


def _draw_order(data: TrainingData, batch_size: int, seed: int, epoch: int) -> Tensor:
    """Draw the images of each step of an epoch, (steps, B)."""
    num_images, generator = len(data.train), make_generator(seed, epoch)
    order = torch.randperm(num_images, generator=generator)
    if data.draws_classes:
        order = _draw_classes(data.train.labels.cpu()[order], generator, order)
    batch_size, steps = min(batch_size, num_images), count_batches(num_images, batch_size)
    return order[: steps * batch_size].view(steps, batch_size)


def _draw_classes(labels: Tensor, generator: torch.Generator, order: Tensor) -> Tensor:
    """Draw as many images, equally many of each class: all of a class come before one comes again.

    labels: (N,) of the images in `order` (N,).
    """
    classes = labels.unique()
    classes = classes[torch.randperm(len(classes), generator=generator)]  # who has one more than others
    shares = torch.full((len(classes),), len(order) // len(classes))
    shares[: len(order) % len(classes)] += 1
    drawn = []
    for label, count in zip(classes, shares.tolist(), strict=True):
        own = order[labels == label]
        rounds = [own, *(own[torch.randperm(len(own), generator=generator)] for _ in range(count // len(own)))]
        drawn.append(torch.cat(rounds)[:count])
    return torch.cat(drawn)[torch.randperm(len(order), generator=generator)]


def iter_training_batches(
    data: TrainingData,
    batch_size: int,
    seed: int,
    epoch: int,
    view: int,
    rank: int = 0,
    world_size: int = 1,
    first: int = 0,
) -> Iterator[Batch]:
    """Yield one epoch of augmented batches from step `first` on.

    Their order is a function of (seed, epoch), pixels of (data.seed, view), and what is mixed or erased of (seed,
    epoch, step). Of each global batch a process gets every `world_size`-th image, starting at `rank`.
    """
    order, own = _draw_order(data, batch_size, seed, epoch), slice(rank, None, world_size)
    steps, settings, side, count = range(first, len(order)), data.settings, data.train.side, order.shape[1]

    def draw_mix(step: int) -> Mix | None:
        if settings.mix == "cutmix":
            return draw_cutmix(count, side, settings.strength, seed, epoch, step)
        return draw_mixup(count, settings.strength, seed, epoch, step) if settings.mix == "mixup" else None

    def list_wanted() -> Iterator[Tensor]:
        for step in steps:
            yield order[step, own]
            if (mix := draw_mix(step)) is not None:
                yield order[step][mix.partners][own]

    batches = _cut(data, view, list_wanted())
    for step in steps:
        batch = next(batches)
        if (mix := draw_mix(step)) is not None:
            batch = _mix_batches(mix, batch, next(batches), data.num_classes)
        elif settings.mix == "erasing":
            squares = draw_squares(count, side, settings.strength, seed, epoch, step)[own]
            batch = batch.apply(partial(mask_squares, squares=squares))
        yield batch


def _cut(data: TrainingData, view: int, wanted: Iterator[Tensor]) -> Iterator[Batch]:
    """Yield batches at some indices (B,), as student and teacher see a view."""
    train, others = data.train, data.draw_teacher_cues(view)
    for indices, pixels in _load_views(data, view, wanted):
        images = train.finish(pixels, indices)
        counterfactual = None if others is None else train.finish(pixels, indices, others)
        there = to_device(indices, train.device)
        yield Batch(images, train.labels[there], there, view, counterfactual, places=indices)


def _load_views(data: TrainingData, view: int, wanted: Iterator[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield some indices (B,) and their uint8 pixels (B, 3, S, S) under a view."""
    train, drawn, workers = data.train, _choose_view(data, view), data.settings.workers
    if not data.uses_workers:
        for indices in wanted:
            yield indices, train.load_view(indices, drawn)
        return
    wanted, ahead = tee(wanted)
    views = prefetch_views(train.pixels, drawn, ahead, workers, train.device.type == "cuda")
    for indices, pixels in zip(wanted, views, strict=True):
        yield indices, pixels.to(train.device, non_blocking=True)


def _choose_view(data: TrainingData, view: int) -> Augmentation:
    """Choose a view of all training images by the config's crop, flip and augment."""
    settings = data.settings
    drawn = draw_view(settings.seed, view, len(data.train), settings.crop, settings.flip)
    if not settings.augment:
        return drawn
    steps = build_transforms(settings.augment, data.train.side)
    return replace(drawn, change=Transforms(steps, settings.seed, view))


def _mix_batches(mix: Mix, own: Batch, others: Batch, num_classes: int) -> Batch:
    """Mix images and labels of `others` into those of `own`."""
    classes = torch.arange(num_classes, device=own.labels.device)
    shares = mix.mix_labels(*((batch.labels[:, None] == classes).float() for batch in (own, others)))
    counterfactual = None if own.counterfactual is None else mix(own.teacher_images, others.teacher_images)
    images = mix(own.images, others.images)
    return replace(own, images=images, counterfactual=counterfactual, shares=shares)


def iter_view_batches(
    data: TrainingData, view: int, batch_size: int, first: int = 0, for_teacher: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield indices (B,) and images (B, 3, S, S) of a view, in the data set's order.

    for_teacher: images as `Batch.teacher_images` has them.
    """
    others = data.draw_teacher_cues(view) if for_teacher else None
    wanted = torch.arange(first, len(data.train)).split(batch_size)
    for indices, pixels in _load_views(data, view, iter(wanted if first < len(data.train) else ())):
        yield indices, data.train.finish(pixels, indices, others)


def make_view_cutter(data: TrainingData, view: int, for_teacher: bool = False) -> Callable[[Tensor], Tensor]:
    """Return a function from indices (B,) to images (B, 3, S, S) of a view.

    for_teacher: images as `Batch.teacher_images` has them.
    """
    train, drawn = data.train, _choose_view(data, view)
    others = data.draw_teacher_cues(view) if for_teacher else None
    return lambda indices: train.load_augmented(indices, drawn, others)


def iter_imageless_batches(
    data: TrainingData,
    batch_size: int,
    seed: int,
    epoch: int,
    view: int,
    rank: int = 0,
    world_size: int = 1,
    first: int = 0,
) -> Iterator[Batch]:
    """Yield `iter_training_batches` without images: labels and indices alone."""
    labels = data.train.labels
    order = _draw_order(data, batch_size, seed, epoch)
    there, nothing = to_device(order, labels.device), torch.empty(0, device=labels.device)
    for step in range(first, len(order)):
        places, indices = (part[step, rank::world_size] for part in (order, there))
        yield Batch(nothing, labels[indices], indices, view, places=places)
