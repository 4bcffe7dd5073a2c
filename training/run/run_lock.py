"""Lock of a run folder: one process, or one group under torchrun, writes in it. `.lock` names the process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from errors import UserError
from files import LockOwner, hold_lock
from training import distributed
from training.run.identity import NAME as IDENTITY

NAME = ".lock"


@contextmanager
def lock_run(folder: Path) -> Iterator[None]:
    """Lock a run folder, which is created where there is none; the first process holds the lock.

    Raises:
        UserError: another process writes in it, or one of another machine has left its lock.
    """
    with ExitStack() as stack:
        other: LockOwner | None = None
        if distributed.rank() == 0:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except FileNotFoundError:  # as /proc says it
                raise UserError(f"{folder}: no folder can be made there: choose another --output-dir") from None
            stack.callback(_remove_empty, folder)
            other = stack.enter_context(hold_lock(folder / NAME, strict=True))
        other = distributed.broadcast_object(other)
        if other is not None:
            hint = "wait for it or stop it, or choose another --set name=..."
            if other.process and not other.is_same_host:
                hint = f"wait for it, or if it no longer runs on that machine remove {folder / NAME}"
            raise UserError(f"{folder} is in use by {other}: {hint}")
        yield


def has_files(folder: Path) -> bool:
    """Return whether a folder has more than a kill may leave before there is a config.yaml."""
    return folder.exists() and any(
        path.name not in (NAME, IDENTITY) and not path.name.endswith(".partial") for path in folder.iterdir()
    )


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):  # a folder with files stays
        folder.rmdir()
