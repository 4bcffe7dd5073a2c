"""Correlation congruence (Peng et al., ICCV 2019), in the form in which Tian et al. (ICLR 2020) compare it.

L = mean over i of Σ over channels of d_i d_(i+1), d = |L f − L' f'| of one image, L and L' linear. Images are
neighbours in the batch, whose order is random.

Letters: B batch, D dimension of a projection.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .loss import LAST, Count, Loss, Samples, Sizes, Taps, View


def compute_cc(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean product of neighbouring images' absolute differences.

    Args:
        student: (B, D).
        teacher: (B, D) of the same images.
    """
    differences = (student - teacher).abs()
    return (differences[:-1] * differences[1:]).sum() / max(len(differences) - 1, 1)


class CC(Loss):
    """Differences of projected features, those of one image times those of the next.

    Args:
        taps: weight of each tap's term
        dim: D of the projections
    """

    uses_weights = False

    def __init__(self, taps: Taps = LAST, dim: Count = 128) -> None:
        super().__init__()
        self.taps, self.dim = taps, dim

    def setup(self, sizes: Sizes) -> None:
        self.processes = sizes.processes
        self.student, self.teacher = nn.ModuleDict(), nn.ModuleDict()
        for tap in self.used_taps:
            self.student[tap] = nn.Linear(sizes.student[tap][0], self.dim)
            self.teacher[tap] = nn.Linear(sizes.teacher[tap][0], self.dim)

    def project(self, student: View, teacher: View) -> dict[str, tuple[Tensor, Tensor]]:
        """Return both networks' projected features (B, D) in float32, by tap."""
        return {
            tap: (self.student[tap](student.taps[tap]).float(), self.teacher[tap](teacher.taps[tap]).float())
            for tap in self.used_taps
        }

    def forward(self, student: View, teacher: View, samples: Samples) -> dict[str, Tensor]:
        gather = self.processes.gather_with_gradient  # the teacher's projection trains, too
        return {
            tap: compute_cc(gather(own), gather(other))
            for tap, (own, other) in self.project(student, teacher).items()
        }

    def compare(self, student: View, teacher: View) -> dict[str, float]:
        pairs = self.project(student, teacher)
        return {f"cosine_{tap}": F.cosine_similarity(*pair).mean().item() for tap, pair in pairs.items()}

    def list_projections(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for side, layers in (("student", self.student), ("teacher", self.teacher)):
            for tap, layer in layers.items():
                found |= {f"{tap}.{side}.{name}": value.detach() for name, value in layer.named_parameters()}
        return found
