"""The best test epoch of each training beside the weights that it ended with.

Much of the field reports the best test epoch. It is chosen on test images, so it is optimistic: it is shown for
comparison with such numbers, and nothing is chosen by it. Accuracies are fractions in [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from diagnostics.seeds import format_number
from diagnostics.terms import History
from training.evaluation import find_best_test_epoch


@dataclass(frozen=True)
class BestEpoch:
    """Test top-1 of a model, and of the best epoch of its last training."""

    model: str
    final: float
    best: float
    difference: float  # best - final
    epoch: int  # of the best, from 1
    epochs: int  # of that training


@dataclass(frozen=True)
class BestEpochs:
    """The models whose epochs are on record, and by how much the best epoch is above the final top-1."""

    models: list[BestEpoch]
    mean_difference: float
    sentence: str


def compare_best_epochs(top1: Mapping[str, float], curves: Mapping[str, History]) -> BestEpochs | None:
    """Compare the final top-1 of each model with its best test epoch; None without an epoch on record."""
    found = [row for name in top1 if (row := _compare(name, top1[name], curves.get(name, [])))]
    if not found:
        return None
    mean = fmean(row.difference for row in found)
    models = f"{len(found)} model{'s' * (len(found) > 1)}"
    sentence = (
        f"The best test epoch is {format_number(100 * mean, 2)} points above the final top-1, mean of {models}. "
        "Much of the field reports it. It is optimistic because it is chosen on "
        "test images. Nothing here is chosen by it."
    )
    return BestEpochs(found, mean, sentence)


def _compare(name: str, final: float, history: History) -> BestEpoch | None:
    best = find_best_test_epoch(history)
    if not best:
        return None
    top1 = best["best_test_top1"]
    return BestEpoch(name, final, top1, top1 - final, int(best["best_test_epoch"]), len(history))
