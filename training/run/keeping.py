"""When a checkpoint within an epoch is written: every so many minutes, and before a signal ends the training."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from errors import StoppedError, asked
from training import distributed
from training.divergence import refuse_infinite
from training.progress import Training
from training.run.job_folder import JobFolder

ASK_EVERY = 1.0  # seconds, about, between two times that several processes agree, which waits for the device
MOST_STEPS = 50  # between them


class Due(NamedTuple):
    """What is to be done after a step, in all processes alike."""

    checkpoint: bool
    signal: int  # that ends the training then, 0 for none


class Keeper:
    """Writes checkpoints, those within an epoch after the same step in every process.

    A signal that ends the training has one written where that takes less time than the training which it keeps,
    by how long the last one took. Several processes are asked apart from each other and are at different steps, so
    they agree about every second; signals wait until then.

    Args:
        folder: of the job.
        training: what is kept.
        minutes: between two checkpoints, 0 for none within an epoch but before a signal ends the training.
    """

    def __init__(self, folder: JobFolder, training: Training, minutes: float) -> None:
        self.folder, self.training, self.seconds = folder, training, 60 * minutes
        self.cost = 0.0  # seconds that the last one took
        self.written = self.agreed = time.perf_counter()
        self.since, self.wait = 0, 1  # steps since processes agreed, and from then until they do again

    def write(self) -> None:
        """Write a checkpoint, and count time anew."""
        begun = time.perf_counter()
        self.folder.save(self.training)
        self.written = time.perf_counter()
        self.cost = self.written - begun

    def after_step(self, look: Callable[[], None]) -> None:
        """Write where it is due, and end where a signal asked for that.

        look: raises where the training has diverged, of which nothing is written.

        Raises:
            DivergedError: by `look`, or for weights that are not finite.
            StoppedError: a signal asked one of the processes to end.
        """
        part = self.training.part
        assert part is not None  # there is one between two steps
        due = self._ask(part.steps)
        if due.checkpoint:
            look()
            refuse_infinite({}, self.training.objective, self.training.stepper)
            self.write()
            part.kept = part.steps
            distributed.barrier()  # a process that ends has the others ended
        if due.signal:
            raise StoppedError(due.signal)

    def _ask(self, step: int) -> Due:
        if distributed.world_size() == 1:
            return self._own(asked())
        self.since += 1
        if self.since < self.wait and step < self.training.stepper.steps:
            return Due(False, 0)
        device = self.training.device
        number, wait = distributed.largest([asked(), self._steps_to_wait()], device)
        self.since, self.wait, self.agreed = 0, wait, time.perf_counter()
        writes = distributed.rank() == 0 and self._own(number).checkpoint  # by one clock
        return Due(bool(distributed.largest([writes], device)[0]), number)

    def _own(self, number: int) -> Due:
        passed = time.perf_counter() - self.written
        due = 0 < self.seconds <= passed
        return Due(due or (number > 0 and passed > self.cost), number)

    def _steps_to_wait(self) -> int:
        """Steps that take about `ASK_EVERY`, as long as those since the last time; of the first process alone."""
        took = (time.perf_counter() - self.agreed) / self.since
        return 0 if distributed.rank() else max(1, min(MOST_STEPS, int(ASK_EVERY / max(took, 1e-9))))
