"""Frozen features: the inputs of a network's classifier, computed once a view.

Letters: N images, B batch, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from dataset.images import Batch, ImageTensors
from dataset.loader import make_view_cutter
from dataset.prepare import TrainingData
from dataset.transfer import to_device
from models.machine import Machine
from models.taps import read_head_inputs
from training import distributed
from training.evaluation import EVALUATION_BATCH, Measures, measure_logits

GROUP = 64  # batches of features that are on the device at once


class ViewCache:
    """Features of training images, kept in memory a view at a time.

    Views are filled in the order of the data set, so that a resumed run computes the same bits.

    Args:
        extract: images (B, 3, S, S) to numbers (B, D), a function of each image alone.
        keep: views that are kept; with one more the oldest goes.
        for_teacher: of the images as the teacher sees them.
    """

    def __init__(
        self, extract: Callable[[Tensor], Tensor], data: TrainingData, keep: int, for_teacher: bool = False
    ) -> None:
        self.extract, self.data, self.keep, self.for_teacher = extract, data, keep, for_teacher
        self.views: dict[int, Tensor] = {}  # view -> (N, D) on the CPU

    def __call__(self, batch: Batch) -> Tensor:  # (B, D)
        if batch.view not in self.views:
            if len(self.views) == self.keep:
                del self.views[next(iter(self.views))]
            self.views[batch.view] = self._extract_view(batch.view)
        return to_device(self.views[batch.view][batch.rows], batch.indices.device)

    def _extract_view(self, view: int) -> Tensor:  # (N, D), computed by all processes together
        cut = make_view_cutter(self.data, view, self.for_teacher)
        parts = torch.arange(len(self.data.train)).split(EVALUATION_BATCH)
        groups = [parts[i : i + GROUP] for i in range(0, len(parts), GROUP)]
        rows = [distributed.parallel_map(group, lambda part: self.extract(cut(part))).cpu() for group in groups]
        return torch.cat(rows)


class FrozenFeatures:
    """Features of a network, for its classifier to be trained and measured on.

    Args:
        model: in evaluation mode; only its classifier may change from now on.
        training: gives the features of a training batch, such as a `ViewCache`.
    """

    def __init__(
        self, model: nn.Module, data: TrainingData, machine: Machine, training: Callable[[Batch], Tensor]
    ) -> None:
        self.data, self.machine, self.training = data, machine, training
        self.extract: Callable[[Tensor], Tensor] = partial(read_head_inputs, model, machine=machine)
        self.measured: dict[str, Tensor] = {}  # split -> (N, D)

    def __call__(self, batch: Batch) -> Tensor:  # (B, D)
        return self.training(batch)

    def _extract_split(self, images: ImageTensors) -> Tensor:  # (N, D)
        parts = torch.arange(len(images), device=images.device).split(EVALUATION_BATCH)
        return distributed.parallel_map(parts, lambda part: self.extract(images.load_normalised(part)))

    @torch.no_grad()
    def evaluate(self, head: nn.Module) -> Measures:
        """Return `evaluate_splits` of the network with this classifier."""
        measures: Measures = {}
        for split, images in (("val", self.data.val), ("test", self.data.test)):
            if images is None:
                continue
            if split not in self.measured:
                self.measured[split] = self._extract_split(images)
            with self.machine.autocast():
                logits = [head(part).float() for part in self.measured[split].split(EVALUATION_BATCH)]
            measures |= measure_logits(torch.cat(logits), images.labels, split)
        return measures
