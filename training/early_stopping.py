"""Early stopping: end a training when its validation measure stalls."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from settings.stages import EarlyStopping
from training.evaluation import Measures

Ended = Callable[[Sequence[Measures]], bool]  # of the epochs that are done


def has_stalled(values: Sequence[float], patience: int, min_delta: float) -> bool:
    """Return whether values have not risen by `min_delta` for `patience` epochs.

    values: of each epoch, the larger the better; equal values are no rise.
    """
    if len(values) <= patience:
        return False
    rise = max(values[-patience:]) - max(values[:-patience])
    return rise <= 0 or rise < min_delta


def make_stopping(settings: EarlyStopping | None, value: Callable[[Measures], float] | None = None) -> Ended:
    """Return the test, after each epoch, whether a training has ended.

    value: of an epoch, the larger the better; by default what the settings watch of the validation images.
    """
    if settings is None:
        return lambda history: False
    sign = -1 if settings.watch == "val_loss" else 1
    read = value or (lambda epoch: sign * epoch[settings.watch])
    return lambda history: has_stalled([read(epoch) for epoch in history], settings.patience, settings.min_delta)
