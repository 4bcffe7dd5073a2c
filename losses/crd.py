"""Contrastive Representation Distillation (Tian, Krishnan & Isola, ICLR 2020).

Letters: B batch, N training samples, K negatives an anchor, L entries of a window that holds them (see
`losses.negatives`), D dimension of a projection, tau temperature.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from losses.bank import MemoryBank, Windows
from losses.negatives import Draw, Mode, NegativeSampler
from losses.objectives import BinaryNCE, InfoNCE, Objective

Form = Literal["nce", "infonce"]  # binary (Tian et al.), or softmax
Negatives = Literal["bank", "shared", "batch"]
FROM_BANK = ("bank", "shared")


class Side(NamedTuple):
    """One direction of the loss: whose anchors, against which bank, with which positives and negatives."""

    anchors: Tensor  # (B, D) unit vectors divided by tau
    bank: MemoryBank
    windows: Windows

    def loss(self, objective: Objective) -> Tensor:
        return self.bank.loss(self.anchors, self.windows, objective)


class CRDLoss(nn.Module):
    """CRD between one student tap and one teacher tap, in both directions, with its projections and banks.

    Args:
        student_dim: channels of the student's feature.
        teacher_dim: channels of the teacher's feature.
        labels: (N,) class of each training sample; a bank has N entries.
        dim: D, dimension of both linear projections.
        num_negatives: K.
        temperature: tau > 0.
        momentum: share of the old bank entry kept at an update, in [0, 1).
        mode: see `NegativeSampler`; "instance" where negatives come from the batch.
        objective: "nce" (binary, Tian et al.) or "infonce" (softmax).
        negatives: "bank", each anchor's own from a bank of all samples; "shared", one set from it for the batch;
            or "batch" for infonce among the batch's own features: the positive is then the other network's feature
            of the same sample, the negatives are its features of the others.
        sampler: one to share with other losses on the same samples, in place of one of its own.
        gather: joins a tensor's batches over processes; banks and Z then agree in all of them.
        gather_with_gradient: the same for negatives from the batch, which is then that of all processes; the loss
            is of the whole in each of them, and their gradients are averaged.

    Raises:
        ValueError: a temperature or momentum out of range, or options that do not go together.
    """

    log_z: Tensor
    student_bank: MemoryBank
    teacher_bank: MemoryBank

    def __init__(
        self,
        student_dim: int,
        teacher_dim: int,
        labels: Tensor,
        *,
        dim: int = 256,
        num_negatives: int = 16384,
        temperature: float = 0.1,
        momentum: float = 0.5,
        mode: Mode = "exact",
        objective: Form = "nce",
        negatives: Negatives = "bank",
        sampler: NegativeSampler | None = None,
        gather: Callable[[Tensor], Tensor] = lambda tensor: tensor,
        gather_with_gradient: Callable[[Tensor], Tensor] = lambda tensor: tensor,
    ) -> None:
        super().__init__()
        if temperature <= 0 or not 0 <= momentum < 1 or num_negatives < 1:
            raise ValueError("need temperature > 0, 0 <= momentum < 1 and num_negatives >= 1")
        if negatives == "batch" and (objective, mode) != ("infonce", "instance"):
            raise ValueError("negatives from the batch need objective infonce and mode instance")
        self.project_student = nn.Linear(student_dim, dim)
        self.project_teacher = nn.Linear(teacher_dim, dim)
        self.temperature = temperature
        self.objective = objective
        self.gather, self.gather_with_gradient = gather, gather_with_gradient
        self.num_samples = len(labels)
        self.num_negatives = num_negatives
        self.negatives = negatives
        self.sampler = sampler if negatives in FROM_BANK else None
        if negatives in FROM_BANK:
            self.sampler = sampler or NegativeSampler(labels, num_negatives, mode, negatives == "shared")
            self.student_bank = MemoryBank(len(labels), dim, momentum)
            self.teacher_bank = MemoryBank(len(labels), dim, momentum)
        self.register_buffer("log_z", torch.zeros(2))  # student and teacher anchors
        self.normalizers_set = False

    def project(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Both features, (B, student_dim) and (B, teacher_dim), as float32 unit vectors (B, D)."""
        anchors = self.project_student(student), self.project_teacher(teacher.to(student.dtype))
        return F.normalize(anchors[0].float(), dim=1), F.normalize(anchors[1].float(), dim=1)

    def linear_maps(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Weight and bias of the projection of either side."""
        own, other = self.project_student, self.project_teacher
        return {"student": (own.weight, own.bias), "teacher": (other.weight, other.bias)}

    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        indices: Tensor,
        draw: Draw | None = None,
        weights: Tensor | None = None,
    ) -> Tensor:
        """Loss of both directions, a scalar; in training the banks are updated afterwards.

        Args:
            student: (B, student_dim).
            teacher: (B, teacher_dim).
            indices: (B,) positions of the samples in the training set, each at most once.
            draw: positives and negatives of `indices`, in place of a draw of its own.
            weights: (B,) that multiply each anchor's term, with negatives from the batch.

        Raises:
            ValueError: weights with negatives from a bank.
        """
        student, teacher = self.project(student, teacher)
        if self.negatives == "batch":
            return self._in_batch(student, teacher, weights)
        if weights is not None:
            raise ValueError("weights need negatives from the batch")
        sides = self._sides(student, teacher, indices, draw)
        if self.objective == "nce" and not self.normalizers_set:
            self._set_normalizers(sides)
        own, other = (side.loss(self._objective(log_z)) for side, log_z in zip(sides, self.log_z, strict=True))
        loss = own + other
        if self.training:
            self.normalizers_set = True
            self._store(student.detach(), teacher.detach(), indices)
        return loss

    def _sides(self, student: Tensor, teacher: Tensor, indices: Tensor, draw: Draw | None) -> tuple[Side, Side]:
        """Student anchors with the teacher's bank, and the reverse."""
        anchors = student / self.temperature, teacher / self.temperature
        windows = self.teacher_bank.windows(draw or self._bank_sampler().draw(indices))
        return Side(anchors[0], self.teacher_bank, windows), Side(anchors[1], self.student_bank, windows)

    @torch.no_grad()
    def _set_normalizers(self, sides: tuple[Side, Side]) -> None:
        """Z is N times the mean of exp(similarity) over the first batch."""
        for i, side in enumerate(sides):
            softmax = InfoNCE()
            side.loss(softmax)
            log_sums = self.gather(softmax.log_sums)  # (B,)
            log_mean = log_sums.logsumexp(dim=0) - math.log(len(log_sums) * (self.num_negatives + 1))
            self.log_z[i] = log_mean + math.log(self.num_samples)

    def _objective(self, log_z: Tensor) -> Objective:
        if self.objective == "infonce":
            return InfoNCE()
        return BinaryNCE(log_z, self.num_negatives, self.num_samples)

    def _store(self, student: Tensor, teacher: Tensor, indices: Tensor) -> None:
        """Bring the newest features of all processes into the banks."""
        indices, student, teacher = (self.gather(tensor) for tensor in (indices, student, teacher))
        places = self._bank_sampler().position[indices]
        self.student_bank.update(places, student)
        self.teacher_bank.update(places, teacher)

    @torch.no_grad()
    def fill(self, student: Tensor, teacher: Tensor, indices: Tensor) -> None:
        """Set the bank entries of `indices` (B,) to the projected features, without a loss.

        From random entries the positives of the first epoch carry nothing; from filled banks it can learn. Entries
        are still older than the anchors, which pushes the means of both networks apart in the first epochs.
        """
        student, teacher = self.project(student, teacher)
        positions = self._bank_sampler().position[self.gather(indices)]
        self.student_bank.set(positions, self.gather(student))
        self.teacher_bank.set(positions, self.gather(teacher))

    def rearrange(self, old: Tensor) -> None:
        """Follow a reshuffled sampler: `old` (N,) is what `NegativeSampler.reshuffle` gave."""
        self.student_bank.rearrange(old)
        self.teacher_bank.rearrange(old)

    def _bank_sampler(self) -> NegativeSampler:
        assert self.sampler is not None  # set wherever negatives come from a bank
        return self.sampler

    def _in_batch(self, student: Tensor, teacher: Tensor, weights: Tensor | None) -> Tensor:
        student, teacher = self.gather_with_gradient(student), self.gather_with_gradient(teacher)
        weights = None if weights is None else self.gather(weights)
        similarities = student @ teacher.T / self.temperature  # (B, B)
        target = torch.arange(len(student), device=student.device)
        if weights is None:
            return F.cross_entropy(similarities, target) + F.cross_entropy(similarities.T, target)
        own, other = (F.cross_entropy(one, target, reduction="none") for one in (similarities, similarities.T))
        return ((own + other) * weights).mean()

    def get_extra_state(self) -> dict[str, Any]:
        return {"normalizers_set": self.normalizers_set}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.normalizers_set = state["normalizers_set"]
