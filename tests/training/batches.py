"""A batch of training images, with them or without."""

from __future__ import annotations

from dataset.images import Batch
from dataset.loader import iter_imageless_batches, iter_training_batches
from training.experiment import Experiment


def cut_batch(experiment: Experiment, view: int = 0, size: int = 16, has_images: bool = True) -> Batch:
    """Return the first batch of an epoch, in the same order for all views."""
    batches = iter_training_batches if has_images else iter_imageless_batches
    return next(batches(experiment.data, size, seed=1, epoch=0, view=view))
