"""Contrastive Representation Distillation (Tian, Krishnan & Isola, ICLR 2020).

Letters: B batch, N training samples, K negatives an anchor, D dimension of a projection, tau temperature.
The first column of every (B, K + 1) matrix belongs to the positive.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from losses.negatives import Mode, NegativeSampler

Objective = Literal["nce", "infonce"]


def nce_loss(similarities: Tensor, log_normalizer: Tensor, num_samples: int) -> Tensor:
    """The binary NCE objective (Tian et al. 2020, Eq. 18 with the critic h of Eq. 19), mean over anchors.

    With p = exp(similarity) / Z the critic is h = p / (p + K/N), and the loss is
    −log h(positive) − Σ_k log(1 − h(negative k)). Both logarithms are softplus of the critic's logit, so nothing
    overflows.

    Args:
        similarities: (B, K + 1) cosine similarities divided by tau.
        log_normalizer: log Z, a scalar tensor.
        num_samples: N.
    """
    num_negatives = similarities.shape[1] - 1
    logits = similarities - log_normalizer - math.log(num_negatives / num_samples)  # (B, K + 1)
    return F.softplus(-logits[:, 0]).mean() + F.softplus(logits[:, 1:]).sum(dim=1).mean()


def infonce_loss(similarities: Tensor) -> Tensor:
    """−log of the positive's share in the softmax over itself and its negatives, mean over anchors.

    Args:
        similarities: (B, K + 1) cosine similarities divided by tau.
    """
    return (similarities.logsumexp(dim=1) - similarities[:, 0]).mean()


class LossAgainstBank(torch.autograd.Function):
    """A loss of the similarities between anchors and drawn bank entries, its gradient taken in the forward pass.

    Scores against the whole bank are one (B, D) x (D, N) product, of which the drawn (B, K + 1) are selected; the
    gradient goes the same way back. So no (B, K, D) tensor is ever made, nothing of size (B, N) outlives the
    forward pass, and the bank may be updated before `backward` is called.
    """

    @staticmethod
    def forward(
        ctx: Any, anchors: Tensor, bank: Tensor, drawn: Tensor, loss_of: Callable[[Tensor], Tensor]
    ) -> Tensor:
        scores = anchors.to(bank.dtype) @ bank.T  # (B, N)
        with torch.enable_grad():
            similarities = scores.gather(1, drawn).float().requires_grad_()  # (B, K + 1)
            loss = loss_of(similarities)
        (slopes,) = torch.autograd.grad(loss, similarities)
        ctx.save_for_backward(scores.zero_().scatter_add_(1, drawn, slopes.to(scores.dtype)) @ bank)
        return loss.detach()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        return grads[0] * ctx.saved_tensors[0].float(), None, None, None


class MemoryBank(nn.Module):
    """One unit vector a training sample, (N, D), moved towards the newest feature with momentum."""

    features: Tensor

    def __init__(self, num_samples: int, dim: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("features", F.normalize(torch.randn(num_samples, dim), dim=1))
        self._lowered: tuple[Tensor, int] | None = None  # a copy in autocast's precision, of which version

    def loss(self, anchors: Tensor, drawn: Tensor, loss_of: Callable[[Tensor], Tensor]) -> Tensor:
        """`loss_of` the inner products (B, K + 1) of anchors (B, D) with the entries `drawn` (B, K + 1)."""
        return LossAgainstBank.apply(anchors, self._entries(), drawn, loss_of)

    def _entries(self) -> Tensor:
        """The bank; under autocast a copy in its precision, kept since casting costs as much as a product."""
        device = self.features.device.type
        if not torch.is_autocast_enabled(device):
            return self.features
        if self._lowered is None or self._lowered[1] != self.features._version:
            self._lowered = self.features.to(torch.get_autocast_dtype(device)), self.features._version
        return self._lowered[0]

    @torch.no_grad()
    def update(self, indices: Tensor, features: Tensor) -> None:
        """Entry i becomes the normalised momentum · old + (1 − momentum) · new, for unit `features` (B, D)."""
        self.set(indices, F.normalize(torch.lerp(features, self.features[indices], self.momentum), dim=1))

    @torch.no_grad()
    def set(self, indices: Tensor, features: Tensor) -> None:
        """Entry i becomes row i of `features` (B, D)."""
        lowered = self._lowered if self._lowered and self._lowered[1] == self.features._version else None
        self.features[indices] = features
        if lowered is not None:
            lowered[0][indices] = features.to(lowered[0].dtype)
            self._lowered = lowered[0], self.features._version


class CRDLoss(nn.Module):
    """CRD between one student tap and one teacher tap, in both directions, with its projections and banks.

    Args:
        student_dim: channels of the student's feature.
        teacher_dim: channels of the teacher's feature.
        labels: (N,) class of each training sample; the bank has N entries.
        dim: D, dimension of both linear projections.
        num_negatives: K.
        temperature: tau > 0.
        momentum: share of the old bank entry kept at an update, in [0, 1).
        mode: see `NegativeSampler`; "instance" where negatives come from the batch.
        objective: "nce" (binary, Tian et al.) or "infonce" (softmax).
        negatives: "bank", or "batch" for infonce among the batch's own features: then the positive is the other
            network's feature of the same sample and the negatives are its features of the other samples.
        gather: joins a tensor's batches over processes; banks and Z then agree in all of them.

    Raises:
        ValueError: a temperature or momentum out of range, or options that do not go together.
    """

    log_z: Tensor

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
        objective: Objective = "nce",
        negatives: Literal["bank", "batch"] = "bank",
        gather: Callable[[Tensor], Tensor] = lambda tensor: tensor,
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
        self.gather = gather
        self.num_samples = len(labels)
        self.from_bank = negatives == "bank"
        if self.from_bank:
            self.sampler = NegativeSampler(labels, num_negatives, mode)
            self.student_bank = MemoryBank(len(labels), dim, momentum)
            self.teacher_bank = MemoryBank(len(labels), dim, momentum)
        self.register_buffer("log_z", torch.zeros(2))  # student and teacher anchors
        self.normalizers_set = False

    def project(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Both features, (B, student_dim) and (B, teacher_dim), as float32 unit vectors (B, D)."""
        anchors = self.project_student(student), self.project_teacher(teacher.to(student.dtype))
        return F.normalize(anchors[0].float(), dim=1), F.normalize(anchors[1].float(), dim=1)

    def draw(self, indices: Tensor) -> Tensor | None:
        """Positives and negatives (B, K + 1) for the samples `indices` (B,), to share among several losses."""
        return self.sampler(indices) if self.from_bank else None

    def forward(self, student: Tensor, teacher: Tensor, indices: Tensor, drawn: Tensor | None = None) -> Tensor:
        """Loss of both directions, a scalar; in training the banks are updated afterwards.

        Args:
            student: (B, student_dim).
            teacher: (B, teacher_dim).
            indices: (B,) positions of the samples in the training set, each at most once.
            drawn: (B, K + 1) positions of positive and negatives, in place of a draw of its own.
        """
        student, teacher = self.project(student, teacher)
        if not self.from_bank:
            return self._in_batch(student, teacher)
        if drawn is None:
            drawn = self.draw(indices)
        loss = self.teacher_bank.loss(student, drawn, lambda cosines: self._direction(cosines, side=0))
        loss = loss + self.student_bank.loss(teacher, drawn, lambda cosines: self._direction(cosines, side=1))
        if self.training:
            self.normalizers_set = True
            indices = self.gather(indices)
            self.student_bank.update(indices, self.gather(student.detach()))
            self.teacher_bank.update(indices, self.gather(teacher.detach()))
        return loss

    @torch.no_grad()
    def fill(self, student: Tensor, teacher: Tensor, indices: Tensor) -> None:
        """Set the bank entries of `indices` (B,) to the projected features, without a loss.

        From random entries the positives of the first epoch carry nothing; from filled banks it can learn. Entries
        are still older than the anchors, which pushes the means of both networks apart in the first epochs.
        """
        if not self.from_bank:
            return
        student, teacher = self.project(student, teacher)
        self.student_bank.set(self.gather(indices), self.gather(student))
        self.teacher_bank.set(self.gather(indices), self.gather(teacher))

    def _direction(self, cosines: Tensor, side: int) -> Tensor:  # (B, K + 1)
        similarities = cosines / self.temperature
        if self.objective == "infonce":
            return infonce_loss(similarities)
        if not self.normalizers_set:  # Z = N times the mean of exp(similarity) over the first batch
            mean = self.gather(similarities.detach().exp().mean()[None]).mean()
            self.log_z[side] = mean.log() + math.log(self.num_samples)
        return nce_loss(similarities, self.log_z[side], self.num_samples)

    def _in_batch(self, student: Tensor, teacher: Tensor) -> Tensor:
        similarities = student @ teacher.T / self.temperature  # (B, B)
        target = torch.arange(len(student), device=student.device)
        return F.cross_entropy(similarities, target) + F.cross_entropy(similarities.T, target)

    def get_extra_state(self) -> dict[str, Any]:
        return {"normalizers_set": self.normalizers_set}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.normalizers_set = state["normalizers_set"]
