"""The loss of `losses.crd` against memory banks, both directions, block by block instead of vector by vector.

Letters: B batch, N training images, K negatives an anchor, D dimension of a projection, tau temperature.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from .bank import MemoryBank, Windows
from .negatives import Draw, NegativeSampler
from .objectives import BinaryNCE, InfoNCE, Objective

Form = Literal["nce", "infonce"]


def keep_rows(tensor: Tensor) -> Tensor:
    """Return the rows of the only process."""
    return tensor


class Side(NamedTuple):
    """One direction of the loss: whose anchors, against which bank, with which positives and negatives."""

    anchors: Tensor  # (B, D) unit vectors divided by tau
    bank: MemoryBank
    windows: Windows

    def compute_loss(self, objective: Objective) -> Tensor:
        """Return an objective's loss of the anchors."""
        return self.bank.compute_loss(self.anchors, self.windows, objective)


class BankContrast(nn.Module):
    """A bank of N features for each network, and the loss of new features of both against them.

    Args:
        sampler: of positives and negatives, which several taps share.
        dim: D.
        temperature: tau > 0.
        momentum: share of the old bank entry kept at an update, in [0, 1).

    Raises:
        ValueError: a temperature or momentum out of range.
    """

    log_z: Tensor

    def __init__(self, sampler: NegativeSampler, dim: int, temperature: float, momentum: float) -> None:
        super().__init__()
        if temperature <= 0 or not 0 <= momentum < 1:
            raise ValueError("need temperature > 0 and 0 <= momentum < 1")
        self._sampler = [sampler]  # in a list: it is a module of whoever made it
        self.temperature = temperature
        self.student = MemoryBank(sampler.num_samples, dim, momentum)
        self.teacher = MemoryBank(sampler.num_samples, dim, momentum)
        self.register_buffer("log_z", torch.zeros(2))  # student and teacher anchors
        self.normalizers_set = False

    @property
    def sampler(self) -> NegativeSampler:
        """The sampler that this module was made with."""
        return self._sampler[0]

    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        indices: Tensor,
        draw: Draw,
        objective: Form,
        gather: Callable[[Tensor], Tensor] = keep_rows,
    ) -> Tensor:
        """Return the loss of both directions; in training, update the banks.

        Args:
            student: (B, D) unit vectors.
            teacher: (B, D) unit vectors of the same images.
            indices: (B,) positions of the images in the training set, each at most once.
            draw: positives and negatives of `indices`.
            objective: "nce" (binary, Tian et al.) or "infonce" (softmax).
            gather: joins a tensor's rows over processes; banks and Z then agree in all of them.
        """
        windows = self.teacher.make_windows(draw)
        sides = (
            Side(student / self.temperature, self.teacher, windows),
            Side(teacher / self.temperature, self.student, windows),
        )
        if objective == "nce" and not self.normalizers_set:
            self._set_normalizers(sides, gather)
        own, other = (
            side.compute_loss(self._make_objective(objective, log_z))
            for side, log_z in zip(sides, self.log_z, strict=True)
        )
        if self.training:
            self.normalizers_set = True
            places = self.sampler.position[gather(indices)]
            self.student.update(places, gather(student.detach()))
            self.teacher.update(places, gather(teacher.detach()))
        loss: Tensor = own + other
        return loss

    def _make_objective(self, form: Form, log_z: Tensor) -> Objective:
        if form == "infonce":
            return InfoNCE()
        return BinaryNCE(log_z, self.sampler.num_negatives, self.sampler.num_samples)

    @torch.no_grad()
    def _set_normalizers(self, sides: tuple[Side, Side], gather: Callable[[Tensor], Tensor]) -> None:
        """Set Z to N times the mean of exp(similarity) over the first batch."""
        for number, side in enumerate(sides):
            softmax = InfoNCE()
            side.compute_loss(softmax)
            log_sums = gather(softmax.log_sums)  # (B,)
            log_mean = log_sums.logsumexp(dim=0) - math.log(len(log_sums) * (self.sampler.num_negatives + 1))
            self.log_z[number] = log_mean + math.log(self.sampler.num_samples)

    @torch.no_grad()
    def fill(self, student: Tensor, teacher: Tensor, indices: Tensor) -> None:
        """Set the entries of `indices` (B,) to features (B, D), without a loss.

        From random entries the positives of the first epoch carry nothing; from filled banks it can learn. Entries
        are still older than the anchors, which pushes the means of both networks apart in the first epochs.
        """
        places = self.sampler.position[indices]
        self.student.set(places, student)
        self.teacher.set(places, teacher)

    def rearrange(self, old: Tensor) -> None:
        """Reorder both banks by the result of `NegativeSampler.reshuffle`."""
        self.student.rearrange(old)
        self.teacher.rearrange(old)

    def get_extra_state(self) -> dict[str, Any]:
        return {"normalizers_set": self.normalizers_set}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.normalizers_set = state["normalizers_set"]
