"""Stability of a training: changes of test accuracy between late epochs.

Letters: E epochs that were measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from diagnostics.statistics import Noted

MIN_CHANGES = 2  # fewer changes have no spread
TOO_SHORT = "Fewer than three epochs in the last half: changes of accuracy have no spread."
NO_CURVE = "Its test accuracy by epoch is not on record."
MEASURE = "test_top1"


@dataclass(frozen=True)
class Stability(Noted):
    """Changes of test accuracy, in -1..1, from each epoch of the last half of a training to the next.

    A training that still improves has a mean change above 0; `sd` is the spread about that mean (n - 1), so a
    steady climb does not count as unsteady.
    """

    epochs: int  # of the last half
    mean_change: float | None
    sd: float | None
    largest_fall: float | None  # 0 or more
    notes: dict[str, str]


def measure_stability(history: Sequence[Mapping[str, float]]) -> Stability:
    """Measure the last (E + 1) // 2 epochs of a history with `test_top1`."""
    values = [epoch[MEASURE] for epoch in history if MEASURE in epoch]
    half = np.array(values[len(values) // 2 :], dtype=np.float64)
    changes = np.diff(half)
    if len(changes) < MIN_CHANGES:
        why = TOO_SHORT if values else NO_CURVE
        return Stability(len(half), None, None, None, dict.fromkeys(("mean_change", "sd", "largest_fall"), why))
    return Stability(
        len(half), float(changes.mean()), float(changes.std(ddof=1)), float(max(0.0, -changes.min())), {}
    )
