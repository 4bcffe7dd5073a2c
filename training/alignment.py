"""How a student's taps are aligned with its teacher's: in the form that the config's crd names, at two depths.

Stage 1 minimises it alone (`training.crd`), end-to-end baselines beside their other terms (`training.baselines`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from configs import stages
from dataset.images import Batch
from losses.crd import CRDLoss
from losses.negatives import Draw, NegativeSampler
from losses.regression import WhitenedRegression
from models.machine import Machine
from models.taps import Outputs, TappedModel
from training import distributed
from training.engine import Term
from training.experiment import Experiment
from training.teacher_outputs import TeacherOutputs, run

TAPS = ("penultimate", "last")
TapLoss = CRDLoss | WhitenedRegression


def fills_banks(settings: stages.CRD) -> bool:
    """Whether one pass of both networks over the training images fills the banks before the first step."""
    return settings.from_bank and settings.bank_init == "features"


def takes_statistics(settings: stages.CRD) -> bool:
    """Whether one pass of the teacher over the training images comes before the first step, to whiten by."""
    return settings.objective == "regression"


class HierarchicalLoss(nn.Module):
    """λ₁ · loss(penultimate) + λ₂ · loss(last), as named terms: contrastive, or by regression.

    Args:
        settings: the config's section crd.
        student_dims: channels of the student's two taps.
        teacher_dims: channels of the teacher's two taps.
        labels: (N,) class of each training sample.
    """

    def __init__(
        self, settings: stages.CRD, student_dims: Sequence[int], teacher_dims: Sequence[int], labels: Tensor
    ) -> None:
        super().__init__()
        self.fills, self.whitens = fills_banks(settings), takes_statistics(settings)
        self.weights = dict(zip(TAPS, (settings.lambda_penultimate, settings.lambda_last), strict=True))
        shared = settings.negatives == "shared"
        self.sampler = (
            NegativeSampler(labels, settings.num_negatives, settings.mode, shared) if settings.from_bank else None
        )
        dims = zip(TAPS, student_dims, teacher_dims, strict=True)
        losses = {
            tap: tap_loss(settings, student, teacher, labels, self.sampler)
            for tap, student, teacher in dims
            if self.weights[tap] > 0
        }
        self.losses = nn.ModuleDict(losses)

    def loss_at(self, tap: str) -> TapLoss:
        """The loss of a tap that has one."""
        loss = self.losses[tap]
        assert isinstance(loss, TapLoss)
        return loss

    def pairs(self, student: Outputs, teacher: Outputs) -> dict[str, tuple[Tensor, Tensor]]:
        """Student and teacher feature of every tap that has a loss."""
        named = zip(TAPS, student.taps, teacher.taps, strict=True)
        return {tap: (own, other) for tap, own, other in named if tap in self.losses}

    @torch.no_grad()
    def prepare(
        self, student: TappedModel, teacher: TeacherOutputs, batches: Iterator[Batch], machine: Machine
    ) -> None:
        """See one epoch's batches before training where the form asks for it.

        Banks are filled with the features of both networks in evaluation mode; whitening takes its statistics.
        """
        if not (self.fills or self.whitens):
            return
        student.eval()
        for batch in batches:
            theirs = teacher(batch)
            ours = run(student, batch.images, machine) if self.fills else theirs
            for tap, (own, other) in self.pairs(ours, theirs).items():
                loss = self.loss_at(tap)
                if isinstance(loss, CRDLoss):
                    loss.fill(own, other, batch.indices)
                else:
                    loss.observe(other)
        for tap in self.losses:
            loss = self.loss_at(tap)
            if isinstance(loss, WhitenedRegression):
                loss.settle()

    def projections(self) -> dict[str, Tensor]:
        """The linear maps behind which the taps are compared, by tap and side; whitening is one too."""
        found: dict[str, Tensor] = {}
        for tap in self.losses:
            for side, (weight, bias) in self.loss_at(tap).linear_maps().items():
                found[f"losses.{tap}.project_{side}.weight"] = weight.detach()
                found[f"losses.{tap}.project_{side}.bias"] = bias.detach()
        return found

    def reshuffle(self) -> None:
        """Put the banks into a new random order, which a further epoch's negatives are drawn by."""
        if self.sampler is not None:
            old = self.sampler.reshuffle()
            for tap in self.losses:
                loss = self.loss_at(tap)
                assert isinstance(loss, CRDLoss)
                loss.rearrange(old)

    def forward(
        self, student: Outputs, teacher: Outputs, indices: Tensor, weights: Tensor | None = None
    ) -> dict[str, Term]:
        """One weighted term a tap; both taps see the same draw of negatives.

        weights: (B,) of the images at `indices`, None where all count alike.
        """
        draw = None if self.sampler is None else draw_together(self.sampler, indices)
        terms = {}
        for tap, (own, other) in self.pairs(student, teacher).items():
            loss = self.loss_at(tap)
            if isinstance(loss, CRDLoss):
                terms[f"crd_{tap}"] = Term(loss(own, other, indices, draw, weights), self.weights[tap])
            else:
                terms[f"regression_{tap}"] = Term(loss(own, other, weights), self.weights[tap])
        return terms


def draw_together(sampler: NegativeSampler, indices: Tensor) -> Draw:
    """Positives and negatives of a process's samples (B,), of a draw that all processes make alike for all."""
    draw = sampler.draw(distributed.whole_batch(indices))
    return draw.part(distributed.rank(), distributed.world_size()) if distributed.world_size() > 1 else draw


def tap_loss(
    settings: stages.CRD, student_dim: int, teacher_dim: int, labels: Tensor, sampler: NegativeSampler | None
) -> TapLoss:
    """The loss between one student tap and one teacher tap that a config's section crd names."""
    if settings.objective == "regression":
        return WhitenedRegression(student_dim, teacher_dim, settings.ridge, settings.whitening, distributed.gather)
    return CRDLoss(
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
        sampler=sampler,
        gather=distributed.gather,
        gather_with_gradient=distributed.gather_with_gradient,
    )


def build_losses(experiment: Experiment, student: TappedModel, teacher: TappedModel) -> HierarchicalLoss:
    """The alignment of two tapped networks, on the device."""
    size = experiment.config.data.image_size
    labels = experiment.data.train.labels
    losses = HierarchicalLoss(experiment.config.crd, student.tap_dims(size), teacher.tap_dims(size), labels)
    return losses.to(experiment.machine.device)
