"""Alignment by regression: the student's projected feature against the teacher's, whitened.

A biased teacher's features vary most along its cue, which so dominates a plain squared error or a cosine.
Whitening gives every direction the same variance, but for a ridge below which directions count as noise (ZCA:
Bell & Sejnowski, 1997).

Letters: B batch, N training images, D channels of the teacher's feature.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .loss import BOTH_TAPS, Loss, Positive, Range, Samples, Sizes, Taps, View


def compute_whitening(covariance: Tensor, ridge: float, power: float = -0.5) -> Tensor:
    """Return the matrix (D, D) that whitens features of a covariance.

    It scales each principal direction by (variance + ridge · largest)^power. Power −0.5 with a ridge of 0 is ZCA
    whitening, power 0 the identity.

    Args:
        covariance: (D, D) symmetric, float64.
        ridge: share of the largest variance that is added to each, above 0.
        power: from −0.5 to 0.
    """
    variances, directions = torch.linalg.eigh(covariance)  # ascending
    largest = variances[-1].clamp(min=torch.finfo(covariance.dtype).tiny)
    scales = (variances.clamp(min=0) + ridge * largest) ** power
    matrix: Tensor = directions * scales @ directions.T
    return matrix


class WhitenedRegression(nn.Module):
    """Squared error of the projected student feature to the whitened teacher feature, over its variance.

    Summed over channels, a mean over the batch, divided by the sum of the channels' variances over the training
    images: 1 for a student that always gives the mean. Channels of the student's feature are standardised before
    the projection, since after a ReLU their means dwarf the rest.

    `update_stats` and `finalize_stats` take the teacher's statistics once, in float64, before training.

    Args:
        student_dim: channels of the student's feature.
        teacher_dim: D.
        ridge: see `whitening`.
        power: see `whitening`.
        gather: joins a tensor's batches over processes, so that all of them whiten alike.
    """

    mean: Tensor
    matrix: Tensor
    variance: Tensor
    count: Tensor
    total: Tensor
    products: Tensor

    def __init__(
        self,
        student_dim: int,
        teacher_dim: int,
        ridge: float,
        power: float = -0.5,
        gather: Callable[[Tensor], Tensor] = lambda tensor: tensor,
    ) -> None:
        super().__init__()
        self.ridge, self.power, self.gather = ridge, power, gather
        self.standardise = nn.BatchNorm1d(student_dim, affine=False)
        self.project_student = nn.Linear(student_dim, teacher_dim)
        self.register_buffer("mean", torch.zeros(teacher_dim))
        self.register_buffer("matrix", torch.eye(teacher_dim))
        self.register_buffer("variance", torch.ones(()))  # Σ over channels, of the whitened feature
        self.register_buffer("count", torch.zeros((), dtype=torch.float64), persistent=False)
        self.register_buffer("total", torch.zeros(teacher_dim, dtype=torch.float64), persistent=False)
        self.register_buffer(
            "products", torch.zeros(teacher_dim, teacher_dim, dtype=torch.float64), persistent=False
        )

    @torch.no_grad()
    def update_stats(self, teacher: Tensor) -> None:
        """Add the features (B, D) of some training images, each at most once."""
        features = teacher.double()
        self.count += len(features)
        self.total += features.sum(dim=0)
        self.products += features.T @ features

    @torch.no_grad()
    def finalize_stats(self) -> None:
        """Compute mean and whitening from all images of all processes."""
        count, total, products = (self.gather(part[None]).sum(dim=0) for part in self._get_sums())
        mean = total / count
        covariance = products / count - torch.outer(mean, mean)
        self.mean.copy_(mean)
        matrix = compute_whitening(covariance, self.ridge, self.power)
        self.matrix.copy_(matrix)
        self.variance.copy_((matrix @ covariance @ matrix).trace())
        for part in self._get_sums():
            part.zero_()

    def _get_sums(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.count, self.total, self.products

    def project(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Return projected and whitened features, (B, D) float32 both."""
        projected = self.project_student(self.standardise(student)).float()
        # small directions would drown in bfloat16's rounding
        with torch.autocast(teacher.device.type, enabled=False):
            return projected, (teacher.float() - self.mean) @ self.matrix

    def compute_linear_maps(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Return weight and bias of `project` for either side, in evaluation."""
        own, channels = self.project_student, self.standardise
        assert channels.running_mean is not None and channels.running_var is not None
        weight = own.weight / (channels.running_var + channels.eps).sqrt()
        ours = weight, own.bias - weight @ channels.running_mean
        return {"student": ours, "teacher": (self.matrix.T, -self.mean @ self.matrix)}

    def forward(self, student: Tensor, teacher: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the loss of features (B, .) and (B, D), weighted by (B,)."""
        projected, target = self.project(student, teacher)
        errors = (projected - target).square().sum(dim=1)  # (B,)
        return (errors if weights is None else errors * weights).mean() / self.variance


def compute_explained_variance(predicted: Tensor, target: Tensor) -> Tensor:
    """Return 1 − Σ(predicted − target)² / Σ(target − mean)² of two (N, D)."""
    residual = (predicted - target).square().sum()
    return 1 - residual / (target - target.mean(dim=0)).square().sum()


class Regression(Loss):
    """Squared error of the projected feature to the teacher's whitened one; not contrastive.

    Args:
        taps: weight of each tap's term
        ridge: share of the largest variance that whitening adds to each
        whitening: power of the variances, -0.5 = whitened, 0 = the teacher's feature as it is
    """

    first_pass = "teacher"

    def __init__(
        self,
        taps: Taps = BOTH_TAPS,
        ridge: Positive = 0.01,
        whitening: Annotated[float, Range(ge=-0.5, le=0)] = -0.5,
    ) -> None:
        super().__init__()
        self.taps, self.ridge, self.whitening = taps, ridge, whitening
        self.at = nn.ModuleDict()

    def setup(self, sizes: Sizes) -> None:
        for tap in self.used_taps:
            dims = sizes.student[tap][0], sizes.teacher[tap][0]
            self.at[tap] = WhitenedRegression(*dims, self.ridge, self.whitening, sizes.processes.gather)

    def get_regression(self, tap: str) -> WhitenedRegression:
        """Return the loss of one tap."""
        found = self.at[tap]
        assert isinstance(found, WhitenedRegression)
        return found

    def prepare(self, student: View, teacher: View, samples: Samples) -> None:
        for tap in self.used_taps:
            self.get_regression(tap).update_stats(teacher.taps[tap])

    def finish_prepare(self) -> None:
        for tap in self.used_taps:
            self.get_regression(tap).finalize_stats()

    def forward(self, student: View, teacher: View, samples: Samples) -> dict[str, Tensor]:
        return {tap: self.at[tap](student.taps[tap], teacher.taps[tap], samples.weights) for tap in self.used_taps}

    def compare(self, student: View, teacher: View) -> dict[str, float]:
        found = {}
        for tap in self.used_taps:
            pair = self.get_regression(tap).project(student.taps[tap], teacher.taps[tap])
            found[f"cosine_{tap}"] = F.cosine_similarity(*pair).mean().item()
            found[f"explained_{tap}"] = compute_explained_variance(*pair).item()
        return found

    def list_projections(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for tap in self.used_taps:
            for side, (weight, bias) in self.get_regression(tap).compute_linear_maps().items():
                found |= {f"{tap}.{side}.weight": weight.detach(), f"{tap}.{side}.bias": bias.detach()}
        return found
