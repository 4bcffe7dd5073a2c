"""Ending a training before its epochs are over, when what it reaches on validation images stalls."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from configs.stages import CRD
from configs.stopping import Stopping
from training.engine import Measures, Plan

Ended = Callable[[Sequence[Measures]], bool]  # of the epochs that are done


def stalled(values: Sequence[float], patience: int, min_delta: float) -> bool:
    """Whether the last `patience` values are better than those before by less than `min_delta`, or not at all.

    values: of each epoch, the larger the better.
    """
    if len(values) <= patience:
        return False
    rise = max(values[-patience:]) - max(values[:-patience])
    return rise <= 0 or rise < min_delta


def ends_by(settings: Stopping | CRD, value: Callable[[Measures], float]) -> Ended:
    """When a training with these settings ends before its epochs are over.

    value: of an epoch, the larger the better.
    """

    def ended(history: Sequence[Measures]) -> bool:
        if settings.until == "epochs":
            return False
        return stalled([value(epoch) for epoch in history], settings.patience, settings.min_delta)

    return ended


def ends_by_validation(settings: Stopping) -> Ended:
    """`ends_by` what the settings watch of the validation images."""
    sign = -1 if settings.watch == "val_loss" else 1
    return ends_by(settings, lambda epoch: sign * epoch[settings.watch])


def how_it_ended(history: Sequence[Measures], plan: Plan) -> dict[str, int | str]:
    """For result.json: after how many epochs, and by what."""
    return {"epochs": len(history), "ended_by": "plateau" if len(history) < plan.epochs else "epochs"}
