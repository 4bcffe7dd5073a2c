"""The one objective of all stages: the weighted sum of a stage's losses.

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
from losses.reuse import fold
from models.heads import find_classifier
from models.layout import TrainedPart
from models.machine import Machine
from models.taps import TappedModel
from settings import stages
from training.alignment import AlignmentEvaluator, rename_repeated
from training.engine import Objective, Term
from training.evaluation import Measures, compute_top1, evaluate_splits
from training.features import FrozenFeatures
from training.reading import Reading
from training.teacher_outputs import FEATURES, FrozenTeacher, predict_taps


@dataclass(frozen=True)
class StageStudent:
    """The network that a stage trains, and the part of it that trains.

    Args:
        model: the network.
        part: its parameters and modules that train.
        reading: taps that the losses read.
        features: frozen features; only the classifier trains, on these in place of images.
        evaluator: measures alignment in place of accuracy.
        projector: maps the student's features to the teacher's classifier.
    """

    model: nn.Module
    part: TrainedPart
    reading: Reading
    features: FrozenFeatures | None = None
    evaluator: AlignmentEvaluator | None = None
    projector: nn.Linear | None = None


class StageObjective(Objective):
    """The weighted sum of a stage's losses.

    The rest of the network keeps its parameters and batch statistics bit for bit.

    Args:
        student: the network to train.
        teacher: None where no loss needs it.
        losses: by the name of their terms; `setup` was called.
        settings: options of the stage; its losses are in the same order.
        weights: (N,) weight of each training image, None for equal weights.
    """

    def __init__(
        self,
        student: StageStudent,
        teacher: FrozenTeacher | None,
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
        self.projector = student.projector
        self.student, self.teacher, self.settings = student, teacher, settings
        uses = settings.losses.values()
        self.terms = {name: (losses[name], use) for name, use in zip(losses, uses, strict=True)}
        self.data, self.machine, self.image_weights = data, machine, weights
        self.sees_images = student.features is None
        self.epoch = -1  # the number of the epoch, from 0
        self.model.requires_grad_(False)
        for parameter in student.part.parameters:
            parameter.requires_grad_(True)
        if self.answering is not None:
            self.head.requires_grad_(False)
        for loss, use in self.terms.values():
            if use.weight == 0:  # measured, not minimised
                loss.requires_grad_(False)

    @property
    def head(self) -> nn.Module:
        """The student's classifier."""
        return find_classifier(self.model)[1]

    @property
    def answering(self) -> Loss | None:
        """The loss that gives logits in place of the student's classifier, if any."""
        return next((loss for loss, _ in self.terms.values() if loss.replaces_classifier), None)

    def train(self, mode: bool = True) -> StageObjective:
        super().train(mode)
        self.model.eval()
        for module in self.student.part.modules:
            module.train(mode)
        return self

    def make_parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Return classifier and losses at `lr`, and the rest at `feature_lr`."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if self.settings.feature_lr is None:
            return [{"params": trained, "lr": lr}]
        modules = [self.head, self.losses, *([self.projector] if self.projector else [])]
        own = {id(parameter) for module in modules for parameter in module.parameters()}
        first = [parameter for parameter in trained if id(parameter) in own]
        rest = [parameter for parameter in trained if id(parameter) not in own]
        groups = [{"params": first, "lr": lr}, {"params": rest, "lr": self.settings.feature_lr}]
        return [group for group in groups if group["params"]]

    def forward(self, batch: Batch) -> dict[str, Term]:
        own = self._compute_view(batch)
        theirs = own if self.teacher is None else self.teacher(batch)
        weights = None if self.image_weights is None else self.image_weights[batch.indices]
        samples = Samples(batch.indices, batch.labels, batch.targets, weights)
        terms: dict[str, Term] = {}
        borrowed = self._answer_through(own, theirs)
        for name, (loss, use) in self.terms.items():
            view = borrowed if use.through == "teacher" else own
            value, weight = loss(view, theirs, samples), compute_weight(use, self.epoch, self.settings.epochs)
            if isinstance(value, Tensor):
                terms[name] = Term(value, weight)
            else:
                terms |= {f"{name}_{key}": Term(v, weight * loss.taps.get(key, 1.0)) for key, v in value.items()}
        if self.student.evaluator is None:
            answering = self.answering
            answers = borrowed.logits if answering is None else answering.predict_logits(own, theirs)
            terms["top1"] = Term(compute_top1(answers, batch.labels))
        return terms

    def _answer_through(self, own: View, theirs: View) -> View:
        """Replace the view's logits by those of projector and teacher's classifier, if there is a projector."""
        if self.projector is None or theirs.classifier is None:
            return own
        return View(theirs.classifier(self.projector(own.taps[FEATURES])), own.taps, own.maps, own.classifier)

    def _compute_view(self, batch: Batch) -> View:
        """Return the student's answer to a batch, with gradients."""
        reading = self.student.reading
        if self.student.features is None:
            return reading.make_view(self.tapped(batch.images), reading.places)
        features = self.student.features(batch)
        return View(self.head(features), dict.fromkeys(reading.pooled, features))

    @torch.no_grad()
    def prepare(self, batches: Iterator[Batch]) -> None:
        """Let losses with a first pass read one epoch, with both networks in evaluation mode."""
        asking = [loss for loss, _ in self.terms.values() if loss.first_pass != "none"]
        if not asking:
            return
        assert self.teacher is not None  # a loss with a first pass needs it
        self.model.eval()
        both = any(loss.first_pass == "both" for loss in asking)
        for batch in batches:
            theirs = self.teacher(batch)
            own = self._compute_first_view(batch) if both else theirs
            samples = Samples(batch.indices, batch.labels, batch.targets)
            for loss in asking:
                loss.prepare(own, theirs, samples)
        for loss in asking:
            loss.finish_prepare()

    def _compute_first_view(self, batch: Batch) -> View:
        if self.student.features is not None:
            return self._compute_view(batch)
        reading = self.student.reading
        return reading.make_view(predict_taps(self.tapped, batch.images, self.machine), reading.places)

    def start_epoch(self) -> None:
        self.epoch += 1
        for loss, _ in self.terms.values():
            loss.start_epoch()

    def measure(self) -> Measures:
        if self.student.evaluator is not None:
            return self.student.evaluator.measure(
                self.model, {name: loss for name, (loss, _) in self.terms.items()}
            )
        answering = self.answering
        if answering is not None and self.teacher is not None:
            answering.fold_into(self.head, self.teacher.classifier)
        if self.projector is not None and self.teacher is not None:
            fold(self.projector, self.teacher.classifier, self.head)
        if self.student.features is not None:
            return self.student.features.evaluate(self.head)
        return evaluate_splits(self.model, self.data, self.machine)

    def collect_projections(self) -> dict[str, Tensor]:
        """Return the linear maps of all losses by name."""
        found: dict[str, Tensor] = {}
        for name, (loss, _) in self.terms.items():
            found |= rename_repeated(name, loss.list_projections(), found)
        return found

    def get_extra_state(self) -> dict[str, Any]:
        return {"epoch": self.epoch}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]


def compute_weight(use: stages.LossUse, epoch: int, epochs: int) -> float:
    """Return the weight of a loss in an epoch, counted from 0."""
    rise = min(1.0, (epoch + 1) / use.ramp_up) if use.ramp_up else 1.0
    fall = (1 + math.cos(math.pi * epoch / epochs)) / 2 if use.fade else 1.0
    return use.weight * rise * fall
