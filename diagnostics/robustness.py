"""Mean corruption error (Hendrycks & Dietterich, ICLR 2019, section 4.3).

Theirs is of fifteen corruptions against AlexNet, this of the six in `dataset.corruptions.DEGRADATIONS` against the
teacher: not the same number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from dataset.corruptions import DEGRADATIONS, SEVERITIES, apply_degradation
from diagnostics.statistics import Noted

KEPT_BYTES = 1 << 28  # of images under all corruptions, up to which they are kept for the next network


@dataclass(frozen=True)
class DegradedImages:
    """Images under each corruption, kept for all networks where they fit."""

    clean: Tensor  # (B, 3, H, W) uint8 on the CPU
    kept: dict[tuple[str, int], Tensor] = field(default_factory=dict)

    def get(self, name: str, severity: int) -> Tensor:
        """Return what `apply_degradation` makes of the images."""
        if self.clean.nbytes * len(DEGRADATIONS) * len(SEVERITIES) > KEPT_BYTES:
            return apply_degradation(self.clean, name, severity)
        if (name, severity) not in self.kept:
            self.kept[name, severity] = apply_degradation(self.clean, name, severity)
        return self.kept[name, severity]


@dataclass(frozen=True)
class CorruptionError(Noted):
    """Error as a multiple of the reference's: below 1 is more robust."""

    mean: float | None  # over all corruptions; None if one of them is not defined
    by_corruption: dict[str, float | None]
    notes: dict[str, str]


def compute_mean_corruption_error(
    errors: Mapping[str, Sequence[float]], reference_errors: Mapping[str, Sequence[float]]
) -> CorruptionError:
    """Compute CE_c = sum of errors / sum of a reference's, and its mean over c.

    It is not a percentage. A corruption under which the reference never errs has no CE.

    Args:
        errors, reference_errors: for each of the same corruptions the error rates at severity 1 to 5.
    """
    ratios: dict[str, float | None] = {}
    for name, rates in errors.items():
        reference = float(sum(reference_errors[name]))
        ratios[name] = float(sum(rates)) / reference if reference else None
    defined = [ratio for ratio in ratios.values() if ratio is not None]
    if len(defined) == len(ratios):
        return CorruptionError(sum(defined) / len(defined), ratios, {})
    undefined = [name for name, ratio in ratios.items() if ratio is None]
    why = f"The reference never errs under {', '.join(undefined)}."
    return CorruptionError(None, ratios, {"mean": why, "by_corruption": why})
