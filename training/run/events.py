"""What was measured, for TensorBoard: as whole as the disk lets its files be, and no training reads them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from errors import MachineError, UserError
from files import in_one_line


class Events:
    """Writes an epoch's numbers into the events file of a folder."""

    def __init__(self, folder: Path, next_epoch: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # a second to import, so only where one trains

        self.path = folder / "events.out.tfevents"
        with in_one_line(self.path, lambda: 0):
            self.writer = SummaryWriter(str(folder), purge_step=next_epoch)

    def add(self, measures: Mapping[str, float], epoch: int) -> None:
        """Raises `UserError` or `MachineError` as `files.in_one_line`."""
        with in_one_line(self.path, lambda: 0, "what was written of it"):
            for name, value in measures.items():
                self.writer.add_scalar(name, value, epoch)

    def settings(self, settings: Mapping[str, bool | str | int | float], results: Mapping[str, float]) -> None:
        """Write hyperparameters with what they reached into this folder's own file. Raises as `add`."""
        from torch.utils.tensorboard.summary import hparams

        with in_one_line(self.path, lambda: 0, "what was written of it"):
            for part in hparams(dict(settings), dict(results)):
                self.writer.file_writer.add_summary(part)  # type: ignore[attr-defined]  # torch gives it no type
            for name, value in results.items():
                self.writer.add_scalar(name, value)

    def close(self) -> None:
        """Raises as `add`."""
        with in_one_line(self.path, lambda: 0, "what was written of it"):
            self.writer.close()


@contextmanager
def events_in(folder: Path, next_epoch: int) -> Iterator[Events]:
    """Open events, closed at the end; a thread of TensorBoard's that cannot write tells the main one alone."""
    said = threading.excepthook

    def say_less(died: threading.ExceptHookArgs) -> None:
        if not isinstance(died.exc_value, OSError):
            said(died)

    threading.excepthook = say_less
    try:
        events = Events(folder, next_epoch)
        try:
            yield events
        except BaseException:
            with suppress(UserError, MachineError):  # what came first is what is told
                events.close()
            raise
        events.close()
    finally:
        threading.excepthook = said
