"""Whether options that count steps and epochs fit how many there are."""

from __future__ import annotations

from errors import UserError, warn
from settings.stages import Stage
from training.stepping import steps_of

FALL_TO_THE_END = ("cosine", "onecycle", "multistep")  # schedules that are stretched over all epochs


def check_lengths(key: str, stage: Stage, batches: int) -> None:
    """Warn of what does not fit a stage with so many batches an epoch.

    key: of the config's section on the stage.

    Raises:
        UserError: steps of more batches than an epoch has.
    """
    optimizer, several, epochs = stage.optimizer, stage.optimizer.accumulate, stage.epochs
    if several > batches:
        raise UserError(f"{key}.optimizer.accumulate={several}: an epoch has {batches} batches, use no more")
    steps = epochs * steps_of(batches, several)
    if optimizer.ema is not None and 1 / (1 - optimizer.ema) > steps:
        warn(
            f"{key}.optimizer.ema={optimizer.ema:g} averages over about {1 / (1 - optimizer.ema):,.0f} steps, and "
            f"there are {steps:,}: what is kept are mostly the first steps' weights, use a smaller one"
        )
    if stage.early_stopping is not None and optimizer.schedule in FALL_TO_THE_END:
        warn(
            f"{key}.early_stopping with schedule: {optimizer.schedule}, which falls over all {epochs} epochs: a "
            "training that ends before them ends at a high rate (constant and exponential do not wait)"
        )
