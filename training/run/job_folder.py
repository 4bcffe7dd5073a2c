"""The folder of one trained network: a checkpoint while it trains, weights and a result when it is done.

checkpoint.pt   all that is needed to go on, and checkpoint.previous.pt, the one before; gone when it is done
metrics.jsonl   one line an epoch, a function of config and seed alone
timing.jsonl    one line an epoch as it was run: images per second, seconds, peak memory
events.*        the same for TensorBoard
model.pt        the network as a plain state dict
projections.pt  of a stage that trains features: linear maps of its losses, for later comparisons
result.json     the mark of being finished, with digests of the others: written last, and the first to go
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from torch import nn
from tqdm import tqdm

from errors import UserError
from files import in_one_line, write_text
from models.checkpoint import copy_of, load_newest, previous_of, save, save_and_keep
from models.whole import file_hash
from training import distributed
from training.evaluation import show_measures
from training.pace import show_duration
from training.progress import Training
from training.run.events import Events, events_in
from training.run.history import checked_history
from training.run.record_file import read_record, write_record
from training.run.usage import EpochUsage

METRICS, PROJECTIONS = "metrics.jsonl", "projections.pt"
LEFT = ("*.pt", "*.jsonl", "events.*", "result.json")  # what a training leaves, finished or not


@dataclass(frozen=True)
class JobFolder:
    """Paths of one job and what may be done with them."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def model(self) -> Path:
        return self.path / "model.pt"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.pt"

    @property
    def timing(self) -> Path:
        return self.path / "timing.jsonl"

    @property
    def begun(self) -> bool:
        """Whether a training has left anything here."""
        return any(True for pattern in LEFT for _ in self.path.glob(pattern))

    @property
    def marked(self) -> bool:
        """Whether training has ended, whatever became of its files since."""
        return (self.path / "result.json").exists()

    @property
    def finished(self) -> bool:
        """Whether training has ended and all that it left is there.

        Raises:
            UserError: result.json is damaged.
        """
        return self.marked and not self.lacking()

    @property
    def unfinished(self) -> bool:
        return self.path.exists() and not self.marked

    def lacking(self) -> list[str]:
        """List files that a job which ended has lost."""
        names = [self.model.name, *self.result().get("files", {})]
        return [name for name in names if not (self.path / name).exists()]

    def refuse_lacking(self) -> None:
        """Raise `UserError` for a job that ended and has lost files since: training would not say so."""
        if self.marked and self.lacking():
            raise UserError(f"{self.path / self.lacking()[0]} is gone, and {self.name} was finished: {self._mend}")

    @property
    def _mend(self) -> str:
        return "put it back, or train it with --fresh (in a study, remove its folder)"

    def verified_model(self) -> Path:
        """Return the file of weights, after a look whether all files are those that training left.

        Raises:
            UserError: one was removed, replaced or edited.
        """
        self.refuse_lacking()
        result = self.result()
        for name, digest in {self.model.name: result["model_sha256"], **result.get("files", {})}.items():
            if file_hash(self.path / name) != digest:
                raise UserError(f"{self.path / name} is not the file that training left: {self._mend}")
        return self.model

    def result(self) -> dict[str, Any]:
        """Read what training reached, and digests of its files.

        Raises:
            UserError: result.json is not there, or not as it was written.
        """
        result = read_record(self.path / "result.json", self._mend)
        if not isinstance(result.get("model_sha256"), str):
            raise UserError(f"{self.path / 'result.json'} names no model_sha256: {self._mend}")
        files = result.get("files", {})
        if not isinstance(files, dict) or not files.keys() <= {METRICS, PROJECTIONS}:
            raise UserError(f"{self.path / 'result.json'} names files that training does not leave: {self._mend}")
        return result

    def history(self) -> list[dict[str, float]]:
        """Read what was measured in each epoch that is done.

        Raises:
            UserError: a line that is none.
        """
        metrics = self.path / METRICS
        try:
            lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []
            return checked_history([json.loads(line) for line in lines])
        except (ValueError, RecursionError):
            raise UserError(f"{metrics} is damaged: {self._mend}") from None

    def epochs_done(self) -> int:
        """Count the epochs of an unfinished job that are done, as far as its files say."""
        metrics = self.path / METRICS
        return metrics.read_bytes().count(b"\n") if metrics.exists() else 0

    def unmark(self) -> None:
        """Have the job count as unfinished from now on."""
        self._remove(lambda: (self.path / "result.json").unlink(missing_ok=True))

    def clear(self) -> None:
        """Remove the folder and all in it, the mark of being finished first.

        Raises:
            UserError: something could not be removed.
        """
        if self.path.exists():
            self.unmark()
            self._remove(lambda: shutil.rmtree(self.path))

    def _remove(self, remove: Callable[[], object]) -> None:
        try:
            remove()
        except OSError as error:
            where = error.filename or self.path
            raise UserError(f"{where} cannot be removed ({error.strerror}): remove {self.path} by hand") from None

    def restore(self, training: Training) -> bool:
        """Have a training go on from the checkpoint, where there is one; whether there was."""
        self.refuse_lacking()
        if not self.checkpoint.exists() and not previous_of(self.checkpoint).exists():
            return False
        state, found = load_newest(self.checkpoint)
        try:
            training.load(state)
        except (KeyError, RuntimeError, ValueError, TypeError, AttributeError, IndexError):
            raise UserError(
                f"{found} does not fit what is trained here, another version may have made it: "
                "start over with --fresh"
            ) from None
        distributed.barrier()  # every process has read it
        if distributed.rank() == 0:
            if found != self.checkpoint:
                found.replace(self.checkpoint)  # or the next epoch would keep the damaged one
            self._write_metrics(training.history)  # a kill may have come between the checkpoint and this file
        return True

    def save(self, training: Training) -> None:
        """Write the checkpoint and, after it, the metrics it implies; the first process does.

        Within an epoch all processes have to ask.
        """
        state = training.state()
        if distributed.rank() == 0:
            save_and_keep(self.checkpoint, state)
            if training.part is None:
                self._write_metrics(training.history)

    def _write_metrics(self, history: Sequence[Mapping[str, float]]) -> None:
        write_text(
            self.path / METRICS,
            "".join(json.dumps(dict(line), allow_nan=False) + "\n" for line in history),
        )

    def finish(self, model: nn.Module, result: Mapping[str, Any]) -> None:
        """Write the weights, then the result, and drop the checkpoint."""
        self.path.mkdir(parents=True, exist_ok=True)
        save(self.model, copy_of(model))
        others = [self.path / name for name in (METRICS, PROJECTIONS) if (self.path / name).exists()]
        digests = {path.name: file_hash(path) for path in others}
        complete = {**result, "model_sha256": file_hash(self.model), "files": digests}
        write_record(self.path / "result.json", complete)
        self.drop_checkpoints()

    def drop_checkpoints(self) -> None:
        """Remove the checkpoints of a job that is done; a kill may have come before that."""
        for path in (self.checkpoint, previous_of(self.checkpoint)):
            path.unlink(missing_ok=True)

    @contextmanager
    def log(self, history: Sequence[Mapping[str, float]], quiet: bool, writes: bool) -> Iterator[Log]:
        """Show progress and, in the process that `writes`, log to TensorBoard, going on after `history`."""
        if not writes:
            yield Log(self, None, quiet=True)
            return
        self.path.mkdir(parents=True, exist_ok=True)
        with events_in(self.path, len(history) + 1) as events:
            yield Log(self, events, quiet)


@dataclass(frozen=True)
class Log:
    """Where the measures of an epoch go, and what a person sees of them."""

    folder: JobFolder
    events: Events | None  # None in a process that does not write
    quiet: bool

    def progress(self, title: str, steps: int, done: int) -> tqdm[NoReturn]:
        """Return a bar over the steps of an epoch, of which some are done."""
        return tqdm(total=steps, initial=done, desc=title, disable=self.quiet or None, leave=False, unit="step")

    def epoch(
        self,
        name: str,
        measures: Mapping[str, float],
        epochs: int,
        usage: EpochUsage,
        seconds_left: float | None = None,
    ) -> None:
        """Report one epoch of the training called `name`, and how long the command still takes."""
        epoch, images_per_second = int(measures["epoch"]), usage.images_per_second
        if self.events is not None:
            self.events.add({**measures, "images_per_second": images_per_second}, epoch)
        timing, line = self.folder.timing, usage.line(epoch)
        with in_one_line(timing, lambda: len(line)), open(timing, "a", encoding="utf-8") as file:
            file.write(line)
        if not self.quiet:
            shown = show_measures(dict(order_measures(measures)), "  ")
            left = "" if seconds_left is None else f"  {show_duration(seconds_left)} left"
            tqdm.write(f"{name} {epoch}/{epochs}  {shown}  {images_per_second:,.0f} images/s{left}")
            sys.stdout.flush()  # a log file shows each epoch as it ends


def order_measures(measures: Mapping[str, float]) -> list[tuple[str, float]]:
    """Return what a person sees of an epoch: all but its number and mean losses of splits, the rate last."""
    hidden = ("epoch", "learning_rate", "val_loss", "test_loss")
    shown = [(key, value) for key, value in measures.items() if key not in hidden]
    return [*shown, ("lr", measures["learning_rate"])]
