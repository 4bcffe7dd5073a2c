"""Checkpoints and logs of one training in its job's folder."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from errors import UserError, pending_signal
from files import wrap_io_errors, write_text
from models.checkpoint import get_previous_path, load_newest, save_and_keep
from training import distributed
from training.checkpointing import CheckpointDecision
from training.progress import TrainState
from training.run.job_folder import JobFolder
from training.run.tensorboard import open_writer, write_scalars
from training.usage import EpochUsage

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

SYNC_SECONDS = 1.0  # about how often several processes agree, which waits for the device
MOST_STEPS = 50  # between two such times


class JobCheckpointer:
    """Implements `training.checkpointing.Checkpointer`.

    Several processes receive a signal at different steps, so they agree about every second.

    Args:
        folder: of the job.
        minutes: between two checkpoints within an epoch, 0 for none except before a signal ends the training.
    """

    def __init__(self, folder: JobFolder, minutes: float = 0.0) -> None:
        self.folder, self.seconds = folder, 60 * minutes
        self.saved = self.synced = time.perf_counter()  # of the last checkpoint, and the last agreement
        self.steps, self.wait = 0, 1  # steps since processes agreed, and from then until they agree again
        self.writer: SummaryWriter | None = None
        self.logs = ExitStack()  # closes the writer

    @property
    def path(self) -> Path:
        """The job's folder."""
        return self.folder.path

    def load(self, state: TrainState) -> bool:
        """Restore the newest checkpoint that is whole; return whether there was one.

        Raises:
            UserError: it does not fit, or a finished job has lost files.
        """
        checkpoint = self.folder.checkpoint
        self.folder.refuse_missing_files()
        if not checkpoint.exists() and not get_previous_path(checkpoint).exists():
            return False
        content, found = load_newest(checkpoint)
        try:
            state.load(content)
        except (KeyError, RuntimeError, ValueError, TypeError, AttributeError, IndexError):
            raise UserError(
                f"{found} does not fit what is trained here, another version may have made it: "
                "start over with --fresh"
            ) from None
        distributed.wait_for_all()  # every process has read it
        if distributed.rank() == 0:
            if found != checkpoint:
                found.replace(checkpoint)  # or the next one would keep the damaged one as previous
            self._write_metrics(state.history)  # a kill may have come between the checkpoint and this file
        return True

    def save(self, state: TrainState) -> None:
        """Write the checkpoint and, after an epoch, the metrics."""
        content = state.collect_state()
        if distributed.rank() == 0:
            self.path.mkdir(parents=True, exist_ok=True)
            save_and_keep(self.folder.checkpoint, content)
            if state.progress is None:
                self._write_metrics(state.history)
        self.saved = time.perf_counter()

    def _write_metrics(self, history: Sequence[Mapping[str, float]]) -> None:
        lines = [json.dumps(dict(line), allow_nan=False) + "\n" for line in history]
        write_text(self.folder.metrics, "".join(lines))

    def decide(self, state: TrainState) -> CheckpointDecision:
        """Decide after a step whether a checkpoint is due and whether the training ends."""
        signal, is_late = pending_signal(), 0 < self.seconds <= time.perf_counter() - self.saved
        if distributed.world_size() > 1:
            self.steps += 1
            is_last = state.progress is not None and state.progress.steps == state.stepper.steps
            if self.steps < self.wait and not is_last:
                return CheckpointDecision(False, 0)
            values = [signal, is_late and distributed.rank() == 0, self._count_steps_to_wait()]
            signal, late, self.wait = distributed.reduce_max(values, state.device)
            is_late = bool(late)
            self.steps, self.synced = 0, time.perf_counter()
        return CheckpointDecision(is_late or signal > 0, signal)

    def _count_steps_to_wait(self) -> int:
        """Return how many steps take about `SYNC_SECONDS` in the first process, 0 in others."""
        took = (time.perf_counter() - self.synced) / self.steps
        return 0 if distributed.rank() else max(1, min(MOST_STEPS, int(SYNC_SECONDS / max(took, 1e-9))))

    def log_epoch(self, measures: Mapping[str, float], usage: EpochUsage) -> None:
        """Append an epoch to TensorBoard's events and to timing.jsonl, in the first process."""
        if distributed.rank() > 0:
            return
        scalars = {**measures, "images_per_second": usage.images_per_second}
        if self.writer is None:
            self.writer = self.logs.enter_context(open_writer(self.path, usage.epoch))
        write_scalars(self.writer, scalars, usage.epoch)
        timing, line = self.folder.timing, usage.to_line()
        with wrap_io_errors(timing, lambda: len(line)), open(timing, "a", encoding="utf-8") as file:
            file.write(line)

    def finish(self) -> None:
        """Close TensorBoard's events."""
        self.logs.close()
