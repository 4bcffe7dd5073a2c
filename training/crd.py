"""Stage 1: align the student's features with the teacher's at two depths; its classifier gets no gradient."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from CKA import linear_cka
from dataset.augment import generator
from dataset.images import Batch, ImageTensors
from losses.regression import WhitenedRegression, explained_variance
from models.checkpoint import save
from models.machine import Machine
from models.parts import depends_on
from models.taps import Outputs, TappedModel
from training import distributed
from training.alignment import TAPS, HierarchicalLoss, build_losses
from training.engine import EVALUATION_BATCH, Measures, Objective, Plan, Term, seed_everything
from training.experiment import Experiment
from training.given import FINISHED, Given
from training.job_folder import PROJECTIONS
from training.prepared import Prepared
from training.stopping import ends_by, how_it_ended
from training.teacher_outputs import TeacherOutputs, run
from training.weights import of_batch

HELD_OUT = 1000  # images on which alignment is reported


class Alignment(Objective):
    """Stage 1's objective: the hierarchical loss, reported with cosine and CKA on held-out images.

    weights: (N,) how much each training image counts, None for all alike.
    """

    def __init__(
        self,
        model: nn.Module,
        tapped: TappedModel,
        losses: HierarchicalLoss,
        teacher: TeacherOutputs,
        held_out: HeldOut,
        weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.image_weights = weights
        self.model, self.tapped, self.losses = model, tapped, losses
        self.teacher = teacher
        self.held_out = held_out
        named = [name for tap, name in zip(TAPS, tapped.taps, strict=True) if tap in losses.losses]
        reached = {id(parameter) for parameter in depends_on(model, named, held_out.images.side)}
        for parameter in model.parameters():  # several processes wait for the gradients of all that trains
            parameter.requires_grad_(id(parameter) in reached)

    def forward(self, batch: Batch) -> dict[str, Term]:
        student, weights = self.tapped(batch.images), of_batch(self.image_weights, batch)
        terms: dict[str, Term] = self.losses(student, self.teacher(batch), batch.indices, weights)
        return terms

    def begin(self, batches: Iterator[Batch]) -> None:
        self.losses.prepare(self.tapped, self.teacher, batches, self.held_out.machine)

    def begin_epoch(self) -> None:
        self.losses.reshuffle()

    def measure(self) -> Measures:
        return self.held_out.measure(self.tapped, self.losses)


class HeldOut:
    """A fixed set of images that stage 1 does not train on, with the teacher's outputs for them.

    They are held-out images where there are some, under cues as the training images have; otherwise test images,
    on which nothing is decided.
    """

    def __init__(self, images: ImageTensors, teacher: TappedModel, machine: Machine, seed: int) -> None:
        self.images = images
        self.indices = torch.randperm(len(images), generator=generator(seed))[:HELD_OUT].to(images.device)
        self.machine = machine
        self.teacher = self._outputs(teacher)

    def _outputs(self, model: TappedModel) -> Outputs:
        parts = [
            run(model, self.images.normalised(indices), self.machine)
            for indices in self.indices.split(EVALUATION_BATCH)
        ]
        taps = tuple(torch.cat(columns) for columns in zip(*(part.taps for part in parts), strict=True))
        return Outputs(torch.cat([part.logits for part in parts]), taps)

    @torch.no_grad()
    def measure(self, student: TappedModel, losses: HierarchicalLoss) -> Measures:
        """Mean cosine of the projected pairs, linear CKA of the features; by regression also what it explains."""
        was_training = student.training, losses.training
        pairs = losses.pairs(self._outputs(student.eval()), self.teacher)
        losses.eval()
        measures: Measures = {}
        for tap, (own, other) in pairs.items():
            loss = losses.loss_at(tap)
            projected = loss.project(own, other)
            measures[f"cosine_{tap}"] = F.cosine_similarity(*projected).mean().item()
            if isinstance(loss, WhitenedRegression):
                measures[f"explained_{tap}"] = explained_variance(*projected).item()
            similarity = linear_cka(own.cpu(), other.cpu()).value
            if similarity is not None:
                measures[f"cka_{tap}"] = similarity
        student.train(was_training[0])
        losses.train(was_training[1])
        return measures


def mean_cosine(epoch: Measures) -> float:
    """Over the taps of held-out images."""
    return fmean(value for name, value in epoch.items() if name.startswith("cosine_"))


def train_stage1(experiment: Experiment, seed: int) -> None:
    """Run stage 1 for one seed and write the aligned student and its projections."""
    folder, prepared = experiment.stage1(seed), prepare_stage1(experiment, seed)
    history = prepared.fit(experiment.machine, folder)
    if distributed.rank() == 0:
        kinds = ("cosine", "cka", "explained")
        measures = {name: value for name, value in history[-1].items() if name.startswith(kinds)}
        assert isinstance(prepared.objective, Alignment)
        save(folder.path / PROJECTIONS, prepared.objective.losses.projections())
        folder.finish(prepared.objective.model, {**how_it_ended(history, prepared.plan), **measures})
    distributed.barrier()


def prepare_stage1(experiment: Experiment, seed: int, given: Given = FINISHED) -> Prepared:
    """What stage 1 minimises for one seed, on which images, and for how long."""
    config, data, machine, settings = experiment.config, experiment.data, experiment.machine, experiment.config.crd
    teacher = experiment.tapped(given.teacher(experiment), config.teacher)
    outputs = given.outputs(experiment, teacher)
    held_out = HeldOut(data.held_out or data.test, teacher, machine, config.data.seed)
    weights = given.weights(experiment, settings, seed)
    model = experiment.new_student(seed)
    tapped = experiment.tapped(model, config.student)
    seed_everything(seed, 1)
    losses = build_losses(experiment, tapped, teacher)
    objective = Alignment(model, tapped, losses, outputs, held_out, weights)
    plan = Plan(
        settings.epochs,
        settings.batch_size,
        settings.optimizer,
        seed,
        views=config.teacher.views,
        rate_key=experiment.key("crd.optimizer.lr"),
        checkpoint_minutes=config.checkpoint_minutes,
        ended=ends_by(settings, mean_cosine),
    )
    return Prepared(objective, data, plan)
