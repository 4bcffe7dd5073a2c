"""Information theoretic representation distillation (Miles, Lopez-Rodriguez & Mikolajczyk, BMVC 2022).

L = λ_c log₂ Σ over channels of |1 − c_d|^(2α) + λ_g Σ over entries of (G² − G_st²). c_d is the correlation over
the batch of channel d of the student's projected feature with the teacher's. G is the Gram matrix of the student's
unit features over its trace. G_st is the product, entry by entry, of both networks' Gram matrices over its trace.

Letters: B batch, D channels of the teacher's feature.
"""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from .loss import LAST, Loss, NonNegative, Positive, Samples, Sizes, Taps, View, compare_batch

SMALLEST = 1e-7  # of a standard deviation: a channel that is constant in a batch has correlation 0


def measure_correlation(student: Tensor, teacher: Tensor, alpha: float) -> Tensor:
    """Return log₂ Σ over channels of |1 − c_d|^(2α) of features (B, D) both.

    As published, channels are divided by their unbiased standard deviation and c_d is a mean over the batch. So
    c_d is at most 1 − 1/B.
    """
    own, other = ((one - one.mean(dim=0)) / one.std(dim=0).clamp(min=SMALLEST) for one in (student, teacher))
    correlations = (own * other).mean(dim=0)  # (D,)
    return (1 - correlations).abs().pow(2 * alpha).sum().log2()


def measure_gram(student: Tensor, teacher: Tensor) -> Tensor:
    """Return Σ over entries of (G² − G_st²) of features (B, D) both."""
    own, other = (units @ units.T for units in (F.normalize(one, dim=1) for one in (student, teacher)))
    joint = own * other
    return ((own / own.trace()).square() - (joint / joint.trace()).square()).sum()


def compute_itrd(student: Tensor, teacher: Tensor, alpha: float, correlation: float, gram: float) -> Tensor:
    """Return λ_c times the correlations' term plus λ_g times the Gram matrices'.

    Args:
        student: (B, D), projected.
        teacher: (B, D) of the same images.
        alpha: α, above 1 channels that correlate least count more.
        correlation: λ_c.
        gram: λ_g.
    """
    return correlation * measure_correlation(student, teacher, alpha) + gram * measure_gram(student, teacher)


class ITRD(Loss):
    """Correlation of each channel with the teacher's, and similarities within the batch.

    Args:
        taps: weight of each tap's term
        alpha: half the power of each channel's distance to correlation 1
        correlation: weight of the channels' term
        gram: weight of the similarities' term
    """

    uses_weights = False

    def __init__(
        self,
        taps: Taps = LAST,
        alpha: Positive = 1.5,
        correlation: NonNegative = 2.0,
        gram: NonNegative = 1.0,
    ) -> None:
        super().__init__()
        self.taps, self.alpha, self.correlation, self.gram = taps, alpha, correlation, gram

    def setup(self, sizes: Sizes) -> None:
        self.processes = sizes.processes
        self.projection = nn.ModuleDict()
        for tap in self.used_taps:
            self.projection[tap] = nn.Linear(sizes.student[tap][0], sizes.teacher[tap][0])

    def forward(self, student: View, teacher: View, samples: Samples) -> dict[str, Tensor]:
        compute = partial(compute_itrd, alpha=self.alpha, correlation=self.correlation, gram=self.gram)
        pairs = {tap: (self.projection[tap](student.taps[tap]), teacher.taps[tap]) for tap in self.used_taps}
        return {tap: compare_batch(compute, *pair, self.processes) for tap, pair in pairs.items()}
