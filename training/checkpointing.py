"""What the training loop needs of the code that stores checkpoints and logs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from training.progress import TrainState
from training.usage import EpochUsage


class CheckpointDecision(NamedTuple):
    """What happens after a step, the same in all processes."""

    is_due: bool  # a checkpoint within the epoch
    signal: int  # that ends the training then, 0 for none


class Checkpointer(Protocol):
    """Stores a training. All processes call each method, in the same order."""

    @property
    def path(self) -> Path:
        """The folder, for messages."""

    def load(self, state: TrainState) -> bool:
        """Restore the newest checkpoint into `state`; return whether there was one."""

    def decide(self, state: TrainState) -> CheckpointDecision:
        """Decide after a step whether a checkpoint is due and whether the training ends."""

    def save(self, state: TrainState) -> None:
        """Write a checkpoint, within an epoch or after it."""

    def log_epoch(self, measures: Mapping[str, float], usage: EpochUsage) -> None:
        """Log an epoch that is done."""

    def finish(self) -> None:
        """Close the logs, after an error too."""
