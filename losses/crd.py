"""Contrastive Representation Distillation (Tian, Krishnan & Isola, ICLR 2020).

An anchor is one network's feature of an image. Its positive is the other network's feature of the same image (or
of its class), its negatives are the other network's features of other images, from a memory bank of all training
images or from the batch. `compute_nce` and `compute_infonce` are the losses as the paper writes them. Banks use
`losses.contrast`, which gives the same numbers without gathering B K vectors.

`CRD` is symmetric: the sum of both directions, student anchors and teacher anchors.

Letters: B batch, N training images, K negatives an anchor, D dimension of a projection, tau temperature.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .bank import BLOCK
from .contrast import BankContrast
from .loss import BOTH_TAPS, Count, Loss, MemoryNeed, Positive, Samples, Share, Sizes, Taps, View
from .negatives import Draw, NegativeSampler

FLOAT = 4  # bytes
PER_SCORE = 13  # bytes: a score, what the binary loss keeps beside it, and whether it is of a negative
KEPT = 3  # values for each parameter: itself, its gradient, its momentum


def compute_nce(anchors: Tensor, positives: Tensor, negatives: Tensor, log_z: Tensor, num_samples: int) -> Tensor:
    """Return the binary loss (Eq. 18), mean over the anchors.

    −log h(positive) − Σ_k log(1 − h(negative k)) with the critic h = p / (p + K/N), p = exp(score) / Z (Eq. 19).
    Both logarithms are softplus of a logit.

    Args:
        anchors: (B, D) unit vectors divided by tau.
        positives: (B, D) unit vectors.
        negatives: (B, K, D) unit vectors.
        log_z: log Z, a scalar.
        num_samples: N.
    """
    shift = log_z + math.log(negatives.shape[1] / num_samples)
    own = (anchors * positives).sum(dim=1) - shift  # (B,)
    others = torch.einsum("bd,bkd->bk", anchors, negatives) - shift
    return (F.softplus(-own) + F.softplus(others).sum(dim=1)).mean()


def compute_infonce(anchors: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """Return −log of the positive's share in the softmax, mean over anchors.

    Args: as `compute_nce`.
    """
    own = (anchors * positives).sum(dim=1, keepdim=True)
    others = torch.einsum("bd,bkd->bk", anchors, negatives)
    first = torch.zeros(len(own), dtype=torch.long, device=own.device)
    return F.cross_entropy(torch.cat([own, others], dim=1), first)


def compute_batch_contrast(
    student: Tensor, teacher: Tensor, temperature: float, weights: Tensor | None = None
) -> Tensor:
    """Return symmetric InfoNCE, both directions added, with the batch's other images.

    An anchor's negatives are the other network's features.

    Args:
        student: (B, D) unit vectors.
        teacher: (B, D) unit vectors of the same images.
        temperature: tau.
        weights: (B,) that multiply each anchor's term.
    """
    similarities = student @ teacher.T / temperature  # (B, B)
    target = torch.arange(len(student), device=student.device)
    if weights is None:
        return F.cross_entropy(similarities, target) + F.cross_entropy(similarities.T, target)
    own, other = (F.cross_entropy(one, target, reduction="none") for one in (similarities, similarities.T))
    return ((own + other) * weights).mean()


class Projections(nn.Module):
    """A linear projection of each network's feature, (B, D_student) and (B, D_teacher), to unit vectors (B, D)."""

    def __init__(self, student_dim: int, teacher_dim: int, dim: int) -> None:
        super().__init__()
        self.student = nn.Linear(student_dim, dim)
        self.teacher = nn.Linear(teacher_dim, dim)

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        own, other = self.student(student), self.teacher(teacher.to(student.dtype))
        return F.normalize(own.float(), dim=1), F.normalize(other.float(), dim=1)


class CRD(Loss):
    """Symmetric CRD, both directions added, one term a tap; all taps see the same negatives.

    Args:
        taps: weight of each tap's term
        objective: nce = the paper's binary form, infonce = softmax
        negatives: bank: each anchor draws its own from all images; shared: the batch draws one set; batch: the
            batch itself, with infonce and mode: instance
        mode: exact/relax: only other classes are negatives, and the positive is the image itself / any of its
            class; instance: all other images are negatives, labels are not used
        num_negatives: K, drawn from the bank
        dim: D of the projections
        temperature: tau, by which similarities are divided
        bank_momentum: share of the old entry kept at an update
        bank_init: what banks hold at first: random vectors as published, or one epoch of both networks' features

    Raises:
        ValueError: a number out of range, or options that do not go together.
    """

    def __init__(
        self,
        taps: Taps = BOTH_TAPS,
        objective: Literal["nce", "infonce"] = "nce",
        negatives: Literal["bank", "shared", "batch"] = "bank",
        mode: Literal["exact", "relax", "instance"] = "exact",
        num_negatives: Count = 16384,
        dim: Count = 256,
        temperature: Positive = 0.1,
        bank_momentum: Share = 0.5,
        bank_init: Literal["random", "features"] = "random",
    ) -> None:
        super().__init__()
        if temperature <= 0 or not 0 <= bank_momentum < 1 or num_negatives < 1:
            raise ValueError("need temperature > 0, 0 <= bank_momentum < 1 and num_negatives >= 1")
        if negatives == "batch" and (objective, mode) != ("infonce", "instance"):
            raise ValueError("negatives: batch needs objective: infonce and mode: instance")
        self.taps, self.objective, self.negatives, self.mode = taps, objective, negatives, mode
        self.num_negatives, self.dim = num_negatives, dim
        self.temperature, self.bank_momentum = temperature, bank_momentum
        self.uses_bank = negatives != "batch"
        self.needs_labels, self.uses_weights = mode != "instance", not self.uses_bank
        self.first_pass = "both" if self.uses_bank and bank_init == "features" else "none"

    def setup(self, sizes: Sizes) -> None:
        self.processes = sizes.processes
        if self.uses_bank:
            shared = self.negatives == "shared"
            self.sampler = NegativeSampler(sizes.labels, self.num_negatives, self.mode, shared)
        self.projection, self.bank = nn.ModuleDict(), nn.ModuleDict()
        for tap in self.used_taps:
            self.projection[tap] = Projections(sizes.student[tap][0], sizes.teacher[tap][0], self.dim)
            if self.uses_bank:
                self.bank[tap] = BankContrast(self.sampler, self.dim, self.temperature, self.bank_momentum)

    def get_bank(self, tap: str) -> BankContrast:
        """Return the memory banks of a tap."""
        bank = self.bank[tap]
        assert isinstance(bank, BankContrast)
        return bank

    def project(self, student: View, teacher: View) -> dict[str, tuple[Tensor, Tensor]]:
        """Return both networks' projected features (B, D), unit vectors, by tap."""
        return {tap: self.projection[tap](student.taps[tap], teacher.taps[tap]) for tap in self.used_taps}

    def prepare(self, student: View, teacher: View, samples: Samples) -> None:
        for tap, (own, other) in self.project(student, teacher).items():
            gathered = (self.processes.gather(one) for one in (own, other, samples.indices))
            self.get_bank(tap).fill(*gathered)

    def start_epoch(self) -> None:
        if self.uses_bank:
            old = self.sampler.reshuffle()
            for tap in self.used_taps:
                self.get_bank(tap).rearrange(old)

    def forward(self, student: View, teacher: View, samples: Samples) -> dict[str, Tensor]:
        draw = self._draw(samples.indices) if self.uses_bank else None
        terms = {}
        for tap in self.used_taps:
            own, other = self.projection[tap](student.taps[tap], teacher.taps[tap])
            if draw is not None:
                terms[tap] = self.get_bank(tap)(
                    own, other, samples.indices, draw, self.objective, self.processes.gather
                )
            else:
                own, other = self.processes.gather_with_gradient(own), self.processes.gather_with_gradient(other)
                weights = None if samples.weights is None else self.processes.gather(samples.weights)
                terms[tap] = compute_batch_contrast(own, other, self.temperature, weights)
        return terms

    def _draw(self, indices: Tensor) -> Draw:
        """Draw positives and negatives of samples (B,): this process's part of one common draw."""
        draw, count = self.sampler.draw(self.processes.gather_batch(indices)), self.processes.world_size()
        return draw if count == 1 else draw.select_part(self.processes.rank(), count)

    def compare(self, student: View, teacher: View) -> dict[str, float]:
        pairs = self.project(student, teacher)
        return {f"cosine_{tap}": F.cosine_similarity(*pair).mean().item() for tap, pair in pairs.items()}

    def list_projections(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for tap in self.used_taps:
            for side, layer in self.projection[tap].named_children():
                found |= {f"{tap}.{side}.{name}": value.detach() for name, value in layer.named_parameters()}
        return found

    def estimate_memory(self, sizes: Sizes, batch_size: int, device: str) -> list[MemoryNeed]:
        count, taps = len(sizes.labels), self.used_taps
        widths = sum(sizes.student[tap][0] + sizes.teacher[tap][0] for tap in taps)
        banks = 2 * len(taps) * count * self.dim if self.uses_bank else 0  # of two networks
        what = "banks and projections" if self.uses_bank else "projections"
        needs = [MemoryNeed("dim", what, FLOAT * (banks + KEPT * widths * self.dim))]
        if self.uses_bank:
            turns = 3 + self.num_negatives // count  # round the bank, each with every anchor and its gradient
            block = min(count, BLOCK[device])
            reached = turns * batch_size
            if self.negatives != "shared":  # windows are spread out, so few need the same block
                reached = min(reached, (block + self.num_negatives) * batch_size // count + 2)
            scores = PER_SCORE * reached * block + 2 * FLOAT * turns * batch_size * self.dim
            needs.append(MemoryNeed("num_negatives", "negatives of a batch", scores))
        return needs
