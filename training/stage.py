"""The one objective: what a stage minimises, whichever its method. Its losses do the work, each in its own file.

Letters: B batch, N training images, C classes, D channels of a tap.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dataset.images import Batch
from dataset.prepare import TrainingData
from losses.loss import Loss, Samples, View
from models.heads import classifier
from models.layout import Trained
from models.machine import Machine
from models.taps import TappedModel
from settings import stages
from training.alignment import AlignmentEvaluator, prefix_repeated
from training.engine import Objective, Term
from training.evaluation import Measures, compute_top1, evaluate_splits
from training.features import FrozenFeatures
from training.reading import Reading
from training.teacher_outputs import run
from training.teacher_side import TeacherSide


@dataclass(frozen=True)
class Student:
    """The network that a stage trains, and what of it.

    Without an `evaluator` its classifier trains, and accuracy is measured. With `features`, which are frozen, only
    the classifier trains and sees no images.
    """

    model: nn.Module
    part: Trained
    reading: Reading
    features: FrozenFeatures | None = None
    evaluator: AlignmentEvaluator | None = None


class StageObjective(Objective):
    """The weighted sum of a stage's losses.

    What does not train keeps its parameters and its batch statistics bit for bit.

    Args:
        student: what is trained.
        teacher: None where no loss asks it.
        losses: by the name of their terms, set up.
        settings: the stage, whose losses come in the same order.
        weights: (N,) how much each training image counts, None for all alike.
    """

    def __init__(
        self,
        student: Student,
        teacher: TeacherSide | None,
        losses: Mapping[str, Loss],
        settings: stages.Stage,
        data: TrainingData,
        machine: Machine,
        weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.model = student.model
        self.tapped = TappedModel(student.model, student.reading.places)
        self.losses = nn.ModuleDict(dict(losses))
        self.student, self.teacher, self.settings = student, teacher, settings
        self.uses = dict(zip(losses, settings.losses.values(), strict=True))
        self.data, self.machine, self.image_weights = data, machine, weights
        self.sees_images = student.features is None
        self.epoch = -1  # the number of the epoch, from 0
        self.model.requires_grad_(False)
        head = {id(parameter) for parameter in self.head.parameters()} if self.answering is not None else set()
        for parameter in student.part.parameters:
            parameter.requires_grad_(id(parameter) not in head)
        for name, use in self.uses.items():
            if use.weight == 0:  # it is measured alone
                self.loss(name).requires_grad_(False)

    @property
    def head(self) -> nn.Module:
        """The student's classifier."""
        return classifier(self.model)[1]

    @property
    def answering(self) -> Loss | None:
        """The loss that answers in place of the student's classifier."""
        return next((self.loss(name) for name in self.uses if self.loss(name).replaces_classifier), None)

    def loss(self, name: str) -> Loss:
        """Return the loss whose terms have a name."""
        found = self.losses[name]
        assert isinstance(found, Loss)
        return found

    def train(self, mode: bool = True) -> StageObjective:
        super().train(mode)
        self.model.eval()
        for module in self.student.part.modules:
            module.train(mode)
        return self

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Return the classifier and the losses' parameters at `lr`, and the rest at the stage's `feature_lr`."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if self.settings.feature_lr is None:
            return [{"params": trained, "lr": lr}]
        own = {id(parameter) for module in (self.head, self.losses) for parameter in module.parameters()}
        first = [parameter for parameter in trained if id(parameter) in own]
        rest = [parameter for parameter in trained if id(parameter) not in own]
        groups = [{"params": first, "lr": lr}, {"params": rest, "lr": self.settings.feature_lr}]
        return [group for group in groups if group["params"]]

    def forward(self, batch: Batch) -> dict[str, Term]:
        own = self._view(batch)
        theirs = own if self.teacher is None else self.teacher(batch)
        weights = None if self.image_weights is None else self.image_weights[batch.indices]
        samples = Samples(batch.indices, batch.labels, batch.targets, weights)
        terms: dict[str, Term] = {}
        for name, use in self.uses.items():
            loss = self.loss(name)
            value, weight = loss(own, theirs, samples), weigh(use, self.epoch, self.settings.epochs)
            if isinstance(value, Tensor):
                terms[name] = Term(value, weight)
            else:
                terms |= {
                    f"{name}_{key}": Term(one, weight * loss.taps.get(key, 1.0)) for key, one in value.items()
                }
        if self.student.evaluator is None:
            answering = self.answering
            answers = own.logits if answering is None else answering.answer(own, theirs)
            terms["top1"] = Term(compute_top1(answers, batch.labels))
        return terms

    def _view(self, batch: Batch) -> View:
        """Return the student's answer to a batch, with gradients."""
        reading = self.student.reading
        if self.student.features is None:
            return reading.view(self.tapped(batch.images), reading.places)
        features = self.student.features(batch)
        return View(self.head(features), dict.fromkeys(reading.pooled, features))

    @torch.no_grad()
    def begin(self, batches: Iterator[Batch]) -> None:
        """Show one epoch to the losses that ask for it, both networks in evaluation mode."""
        asking = [self.loss(name) for name in self.uses if self.loss(name).first_pass != "none"]
        if not asking:
            return
        assert self.teacher is not None  # whoever asks for an epoch asks it
        self.model.eval()
        both = any(loss.first_pass == "both" for loss in asking)
        for batch in batches:
            theirs = self.teacher(batch)
            own = self._first_view(batch) if both else theirs
            samples = Samples(batch.indices, batch.labels, batch.targets)
            for loss in asking:
                loss.prepare(own, theirs, samples)
        for loss in asking:
            loss.finish_prepare()

    def _first_view(self, batch: Batch) -> View:
        if self.student.features is not None:
            return self._view(batch)
        reading = self.student.reading
        return reading.view(run(self.tapped, batch.images, self.machine), reading.places)

    def begin_epoch(self) -> None:
        self.epoch += 1
        for name in self.uses:
            self.loss(name).begin_epoch()

    def measure(self) -> Measures:
        if self.student.evaluator is not None:
            return self.student.evaluator.measure(self.model, {name: self.loss(name) for name in self.uses})
        answering = self.answering
        if answering is not None and self.teacher is not None:
            answering.fold_into(self.head, self.teacher.classifier)
        if self.student.features is not None:
            return self.student.features.evaluate(self.head)
        return evaluate_splits(self.model, self.data, self.machine)

    def projections(self) -> dict[str, Tensor]:
        """Return the linear maps of all losses by name, to compare features behind them later."""
        found: dict[str, Tensor] = {}
        for name in self.uses:
            found |= prefix_repeated(name, self.loss(name).projections(), found)
        return found

    def get_extra_state(self) -> dict[str, Any]:
        return {"epoch": self.epoch}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]


def weigh(use: stages.LossUse, epoch: int, epochs: int) -> float:
    """Return the weight of a loss in an epoch, counted from 0, of so many: ramped up, faded, or constant."""
    rise = min(1.0, (epoch + 1) / use.ramp_up) if use.ramp_up else 1.0
    fall = (1 + math.cos(math.pi * epoch / epochs)) / 2 if use.fade else 1.0
    return use.weight * rise * fall
