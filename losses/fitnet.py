"""FitNets: hints from a middle stage (Romero, Ballas, Kahou, Chassang, Gatta & Bengio, ICLR 2015).

L = mean over entries of (r(F) − F')², F the student's map and F' the teacher's. The regressor r brings the
student's map to the teacher's shape: a convolution, batch norm and ReLU. The paper trains the student up to the
hint first, in a stage of its own. Later benchmarks train everything at once.

Letters: B batch, C channels, S side of a map.
"""

from __future__ import annotations

from types import MappingProxyType

from torch import Tensor, nn

from .loss import Loss, Samples, Sizes, Taps, View
from .maps import match_sides
from .reuse import compute_squared_error

STAGE2: Taps = MappingProxyType({"stage2": 1.0})


def compute_fitnet(student: Tensor, teacher: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the mean over all entries of the squared difference.

    Args:
        student: (B, C, S, S), behind the regressor.
        teacher: (B, C, S, S).
        weights: (B,) that multiply each image's term.
    """
    return compute_squared_error(student.flatten(1), teacher.flatten(1), weights)


def make_regressor(student: tuple[int, ...], teacher: tuple[int, ...]) -> nn.Sequential:
    """Return a regressor from the student's shape (C, S, S) to the teacher's.

    Halved and doubled sides are strides, other larger sides are the convolution's. What remains smaller stays so.
    """
    (channels, side, _), (wanted, target, _) = student, teacher
    layer: nn.Module
    if side == 2 * target:
        layer = nn.Conv2d(channels, wanted, 3, stride=2, padding=1)
    elif 2 * side == target:
        layer = nn.ConvTranspose2d(channels, wanted, 4, stride=2, padding=1)
    else:
        layer = nn.Conv2d(channels, wanted, max(1 + side - target, 1))
    return nn.Sequential(layer, nn.BatchNorm2d(wanted), nn.ReLU())


class FitNet(Loss):
    """Squared error of the student's map behind a regressor to the teacher's, both at the end of a stage.

    Args:
        taps: weight of each tap's term
    """

    needs_maps = True

    def __init__(self, taps: Taps = STAGE2) -> None:
        super().__init__()
        self.taps = taps

    def setup(self, sizes: Sizes) -> None:
        self.regressor = nn.ModuleDict()
        for tap in self.used_taps:
            self.regressor[tap] = make_regressor(sizes.student[tap], sizes.teacher[tap])

    def forward(self, student: View, teacher: View, samples: Samples) -> dict[str, Tensor]:
        terms = {}
        for tap in self.used_taps:
            own = self.regressor[tap](student.maps[tap]).float()
            terms[tap] = compute_fitnet(*match_sides(own, teacher.maps[tap].float()), samples.weights)
        return terms
