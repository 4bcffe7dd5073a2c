"""Stage 1: align the student's features with the teacher's at two depths; its classifier gets no gradient."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from CKA import linear_cka
from configs import schema
from dataset.augment import generator
from dataset.images import Batch, ImageTensors
from losses.crd import FROM_BANK, CRDLoss
from losses.negatives import NegativeSampler
from models.checkpoint import save
from models.machine import Machine
from models.parts import depends_on
from models.taps import Outputs, TappedModel
from training import distributed
from training.engine import EVALUATION_BATCH, Measures, Objective, Plan, Term, fit, seed_everything
from training.experiment import Experiment
from training.teacher import ensure_teacher
from training.teacher_outputs import TeacherOutputs, run, teacher_outputs

TAPS = ("penultimate", "last")
PROJECTIONS = "projections.pt"  # stage 1's linear maps, for later comparisons of features
HELD_OUT = 1000  # images on which alignment is reported


def fills_banks(settings: schema.CRD) -> bool:
    """Whether one pass of both networks over the training images fills the banks before the first step."""
    return settings.bank_init == "features" and settings.negatives in FROM_BANK


class HierarchicalCRD(nn.Module):
    """λ₁ · CRD(penultimate) + λ₂ · CRD(last), as named terms.

    Args:
        settings: the config's section crd.
        student_dims: channels of the student's two taps.
        teacher_dims: channels of the teacher's two taps.
        labels: (N,) class of each training sample.
    """

    def __init__(
        self, settings: schema.CRD, student_dims: Sequence[int], teacher_dims: Sequence[int], labels: Tensor
    ) -> None:
        super().__init__()
        from_bank = settings.negatives in FROM_BANK
        self.fills = fills_banks(settings)
        self.weights = dict(zip(TAPS, (settings.lambda_penultimate, settings.lambda_last), strict=True))
        shared = settings.negatives == "shared"
        self.sampler = (
            NegativeSampler(labels, settings.num_negatives, settings.mode, shared) if from_bank else None
        )
        losses: dict[str, CRDLoss] = {}
        for tap, student_dim, teacher_dim in zip(TAPS, student_dims, teacher_dims, strict=True):
            if self.weights[tap] > 0:
                losses[tap] = CRDLoss(
                    student_dim,
                    teacher_dim,
                    labels,
                    dim=settings.dim,
                    num_negatives=settings.num_negatives,
                    temperature=settings.temperature,
                    momentum=settings.bank_momentum,
                    mode=settings.mode,
                    objective=settings.objective,
                    negatives=settings.negatives,
                    sampler=self.sampler,
                    gather=distributed.gather,
                )
        self.losses = nn.ModuleDict(losses)

    def loss_at(self, tap: str) -> CRDLoss:
        """The loss of a tap that has one."""
        loss = self.losses[tap]
        assert isinstance(loss, CRDLoss)
        return loss

    def pairs(self, student: Outputs, teacher: Outputs) -> dict[str, tuple[Tensor, Tensor]]:
        """Student and teacher feature of every tap that has a loss."""
        named = zip(TAPS, student.taps, teacher.taps, strict=True)
        return {tap: (own, other) for tap, own, other in named if tap in self.losses}

    def fill(
        self, student: TappedModel, teacher: TeacherOutputs, batches: Iterator[Batch], machine: Machine
    ) -> None:
        """Fill the banks with the features of one epoch's batches, both networks in evaluation mode."""
        student.eval()
        for batch in batches:
            for tap, (own, other) in self.pairs(run(student, batch.images, machine), teacher(batch)).items():
                self.loss_at(tap).fill(own, other, batch.indices)

    def reshuffle(self) -> None:
        """Put the banks into a new random order, which a further epoch's negatives are drawn by."""
        if self.sampler is not None:
            old = self.sampler.reshuffle()
            for tap in self.losses:
                self.loss_at(tap).rearrange(old)

    def forward(self, student: Outputs, teacher: Outputs, indices: Tensor) -> dict[str, Term]:
        """One weighted term a tap; both taps see the same draw of negatives."""
        draw = None if self.sampler is None else self.sampler.draw(indices)
        return {
            f"crd_{tap}": Term(self.losses[tap](own, other, indices, draw), self.weights[tap])
            for tap, (own, other) in self.pairs(student, teacher).items()
        }


class Alignment(Objective):
    """Stage 1's objective: the hierarchical CRD loss, reported with cosine and CKA on held-out images."""

    def __init__(
        self,
        model: nn.Module,
        tapped: TappedModel,
        crd: HierarchicalCRD,
        teacher: TeacherOutputs,
        held_out: HeldOut,
    ) -> None:
        super().__init__()
        self.model, self.tapped, self.crd = model, tapped, crd
        self.teacher = teacher
        self.held_out = held_out
        named = [name for tap, name in zip(TAPS, tapped.taps, strict=True) if tap in crd.losses]
        reached = {id(parameter) for parameter in depends_on(model, named, held_out.images.side)}
        for parameter in model.parameters():  # several processes wait for the gradients of all that trains
            parameter.requires_grad_(id(parameter) in reached)

    def forward(self, batch: Batch) -> dict[str, Term]:
        terms: dict[str, Term] = self.crd(self.tapped(batch.images), self.teacher(batch), batch.indices)
        return terms

    def begin(self, batches: Iterator[Batch]) -> None:
        if self.crd.fills:
            self.crd.fill(self.tapped, self.teacher, batches, self.held_out.machine)

    def begin_epoch(self) -> None:
        self.crd.reshuffle()

    def measure(self) -> Measures:
        return self.held_out.measure(self.tapped, self.crd)


class HeldOut:
    """A fixed set of images that stage 1 does not train on, with the teacher's outputs for them.

    They are validation images where there are some; otherwise test images, on which nothing is decided.
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
    def measure(self, student: TappedModel, crd: HierarchicalCRD) -> Measures:
        """Mean cosine of the projected pairs and linear CKA of the features, a tap."""
        was_training = student.training
        pairs = crd.pairs(self._outputs(student.eval()), self.teacher)
        student.train(was_training)
        measures: Measures = {}
        for tap, (own, other) in pairs.items():
            projected = crd.loss_at(tap).project(own, other)
            measures[f"cosine_{tap}"] = F.cosine_similarity(*projected).mean().item()
            similarity = linear_cka(own.cpu(), other.cpu()).value
            if similarity is not None:
                measures[f"cka_{tap}"] = similarity
        return measures


def plateaued(history: Sequence[Measures], patience: int, min_delta: float) -> bool:
    """Whether the mean cosine over the taps rose by less than `min_delta` in the last `patience` epochs."""
    cosines = [fmean(value for name, value in epoch.items() if name.startswith("cosine_")) for epoch in history]
    return len(cosines) > patience and max(cosines[-patience:]) < max(cosines[:-patience]) + min_delta


def build_crd(experiment: Experiment, student: TappedModel, teacher: TappedModel) -> HierarchicalCRD:
    """The CRD terms between two tapped networks, on the device."""
    size = experiment.config.data.image_size
    labels = experiment.data.train.labels
    crd = HierarchicalCRD(experiment.config.crd, student.tap_dims(size), teacher.tap_dims(size), labels)
    return crd.to(experiment.machine.device)


def train_stage1(experiment: Experiment, seed: int) -> None:
    """Run stage 1 for one seed and write the aligned student and its projections."""
    config, data, machine = experiment.config, experiment.data, experiment.machine
    settings, folder = config.crd, experiment.stage1(seed)
    teacher = experiment.tapped(ensure_teacher(experiment), config.teacher)
    outputs = teacher_outputs(experiment, teacher)
    held_out = HeldOut(data.val or data.test, teacher, machine, config.data.seed)
    model = experiment.new_student(seed)
    tapped = experiment.tapped(model, config.student)
    seed_everything(seed, 1)
    crd = build_crd(experiment, tapped, teacher)
    objective = Alignment(model, tapped, crd, outputs, held_out)

    def ended(history: Sequence[Measures]) -> bool:
        return settings.until == "plateau" and plateaued(history, settings.patience, settings.min_delta)

    plan = Plan(
        settings.epochs, settings.batch_size, settings.optimizer, seed, views=config.teacher.views, ended=ended
    )
    history = fit(objective, data, plan, machine, folder)
    if distributed.rank() == 0:
        measures = {name: value for name, value in history[-1].items() if name.startswith(("cosine", "cka"))}
        ended_by = "plateau" if len(history) < settings.epochs else "epochs"
        projections = {name: value for name, value in crd.state_dict().items() if ".project_" in name}
        save(folder.path / PROJECTIONS, projections)
        folder.finish(model, {"epochs": len(history), "ended_by": ended_by, **measures})
        if ended_by == "plateau" and not machine.quiet:
            print(
                f"stage 1 ended after {len(history)} of {settings.epochs} epochs: alignment has stopped improving"
            )
    distributed.barrier()
