"""Agreement of a student's features with its teacher's on held-out images."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from statistics import fmean
from typing import TypeVar

import torch
from torch import nn

from CKA import compute_linear_cka
from dataset.images import ImageTensors
from dataset.views.augment import make_generator
from losses.loss import Loss, View
from models.machine import Machine
from models.taps import Outputs, TappedModel
from training.evaluation import EVALUATION_BATCH, Measures
from training.reading import Reading
from training.teacher_outputs import predict_taps

T = TypeVar("T")
HELD_OUT = 1000  # images on which alignment is reported


class AlignmentEvaluator:
    """A fixed choice of held-out images, with the teacher's features of them.

    Args:
        images: to choose from.
        teacher: frozen, with the places of `theirs`.
        own, theirs: what is compared of student and teacher.
        seed: of the choice.
    """

    def __init__(
        self, images: ImageTensors, teacher: nn.Module, own: Reading, theirs: Reading, machine: Machine, seed: int
    ) -> None:
        self.images, self.own, self.machine = images, own, machine
        self.indices = torch.randperm(len(images), generator=make_generator(seed))[:HELD_OUT].to(images.device)
        self.teacher = self._compute_view(teacher, theirs)

    def _compute_view(self, model: nn.Module, reading: Reading) -> View:
        tapped = TappedModel(model, reading.places).eval()
        parts = [
            predict_taps(tapped, self.images.load_normalised(indices), self.machine)
            for indices in self.indices.split(EVALUATION_BATCH)
        ]
        taps = tuple(torch.cat(columns) for columns in zip(*(part.taps for part in parts), strict=True))
        return reading.make_view(Outputs(torch.cat([part.logits for part in parts]), taps), reading.places)

    @torch.no_grad()
    def measure(self, student: nn.Module, losses: Mapping[str, Loss]) -> Measures:
        """Return what the losses say of features, and linear CKA of each tap.

        losses: by name, which stands before a measure that an earlier one has given.
        """
        modules = [student, *losses.values()]
        training = [module.training for module in modules]
        own = self._compute_view(student.eval(), self.own)
        measures: Measures = {}
        for name, loss in losses.items():
            measures |= rename_repeated(name, loss.eval().compare(own, self.teacher), measures)
        for tap, features in own.taps.items():
            similarity = compute_linear_cka(features.cpu(), self.teacher.taps[tap].cpu()).value
            if similarity is not None:
                measures[f"cka_{tap}"] = similarity
        for module, was_training in zip(modules, training, strict=True):
            module.train(was_training)
        return measures


def rename_repeated(name: str, new: Mapping[str, T], known: Collection[str]) -> dict[str, T]:
    """Return values by key, with the loss's name before a key that is known."""
    return {f"{name}_{key}" if key in known else key: value for key, value in new.items()}


def average_alignment(epoch: Measures) -> float:
    """Return the mean cosine over taps, or CKA where no loss measures a cosine."""
    cosines = [value for name, value in epoch.items() if name.startswith("cosine_")]
    return fmean(cosines or [value for name, value in epoch.items() if name.startswith("cka_")])
