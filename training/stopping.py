"""Ending a training before its epochs are over, when what it reaches on validation images stalls."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from settings.stages import EarlyStopping
from training.engine import Plan
from training.evaluation import Measures

Ended = Callable[[Sequence[Measures]], bool]  # of the epochs that are done


def stalled(values: Sequence[float], patience: int, min_delta: float) -> bool:
    """Return whether the last `patience` values beat those before by less than `min_delta`, or not at all.

    values: of each epoch, the larger the better.
    """
    if len(values) <= patience:
        return False
    rise = max(values[-patience:]) - max(values[:-patience])
    return rise <= 0 or rise < min_delta


def make_stopping(settings: EarlyStopping | None, value: Callable[[Measures], float] | None = None) -> Ended:
    """Return when a training with these settings ends before its epochs are over.

    value: of an epoch, the larger the better; by default what the settings watch of the validation images.
    """
    if settings is None:
        return lambda history: False
    sign = -1 if settings.watch == "val_loss" else 1
    read = value or (lambda epoch: sign * epoch[settings.watch])
    return lambda history: stalled([read(epoch) for epoch in history], settings.patience, settings.min_delta)


def summarise_stop(history: Sequence[Measures], plan: Plan) -> dict[str, int | str]:
    """Return for result.json after how many epochs a training ended, and by what."""
    return {"epochs": len(history), "ended_by": "plateau" if len(history) < plan.epochs else "epochs"}
