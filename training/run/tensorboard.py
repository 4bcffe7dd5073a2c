"""TensorBoard: scalars of each epoch, and settings with results (HPARAMS)."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from files import wrap_io_errors
from settings.merge import flatten
from settings.schema import Config
from training import distributed
from training.job_name import JobName, get_stage
from training.run.job_folder import JobFolder

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

EVENTS = "events.out.tfevents"  # how the names of its files begin
Value = bool | str | int | float


@contextmanager
def open_writer(folder: Path, next_epoch: int) -> Iterator[SummaryWriter]:
    """Open an events file in a folder; TensorBoard's thread prints no traceback of a full disk.

    next_epoch: earlier files may have this epoch and later ones, which TensorBoard hides.
    """
    from torch.utils.tensorboard import SummaryWriter  # takes a second to import

    excepthook = threading.excepthook
    threading.excepthook = lambda died: None if isinstance(died.exc_value, OSError) else excepthook(died)
    try:
        with wrap_io_errors(folder / EVENTS, lambda: 0):
            writer = SummaryWriter(str(folder), purge_step=next_epoch)
        try:
            yield writer
        finally:
            writer.close()
    finally:
        threading.excepthook = excepthook


def _wrap_errors(writer: SummaryWriter) -> AbstractContextManager[None]:
    return wrap_io_errors(Path(writer.log_dir) / EVENTS, lambda: 0, "what was written of it")


def write_scalars(writer: SummaryWriter, values: Mapping[str, float], epoch: int) -> None:
    """Write an epoch's numbers to disk.

    Raises:
        UserError, MachineError: as `files.wrap_io_errors`.
    """
    with _wrap_errors(writer):
        for name, value in values.items():
            writer.add_scalar(name, value, epoch)
        writer.flush()


def write_hparams(config: Config, name: JobName, folder: JobFolder) -> None:
    """Write the settings of a finished training with its results, in the first process.

    Raises:
        UserError, MachineError: as `files.wrap_io_errors`; the training is finished all the same.
    """
    from torch.utils.tensorboard.summary import hparams

    if distributed.rank() != 0:
        return
    results = {
        f"result/{key}": float(one) for key, one in folder.read_result().items() if type(one) in (int, float)
    }
    with open_writer(folder.path, int(results.get("result/epochs", 0)) + 1) as writer, _wrap_errors(writer):
        for summary in hparams(list_settings(config, name), results):
            writer.file_writer.add_summary(summary)  # type: ignore[attr-defined]  # torch gives it no type
        for key, value in results.items():
            writer.add_scalar(key, value)
        writer.flush()


def list_settings(config: Config, name: JobName) -> dict[str, Value]:
    """Return the settings that a training depends on as dotted keys; TensorBoard shows other types as text."""
    plain = config.model_dump(mode="json")
    sections = ["data", "teacher", "student"] + (["shortcut"] if config.shortcut.cue != "none" else [])
    settings = {section: plain[section] for section in sections}
    settings["stage"] = get_stage(config, name).model_dump(mode="json")
    found: dict[str, Value] = {"job": name.label, "seed": -1 if name.seed is None else name.seed}
    for key, value in flatten(settings).items():
        found[key] = value if isinstance(value, Value) else str(value)
    return found
