"""Only one process (or one group under torchrun) writes in the folder of a run: .lock in it names the process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from errors import UserError
from files import Holder, locked
from training import distributed
from training.run.identity import NAME as IDENTITY

NAME = ".lock"


@contextmanager
def writing_in(folder: Path) -> Iterator[None]:
    """Be the one that writes in the folder of a run, made where there is none; the first process holds the lock.

    The lock of a process that was killed is taken over. Reading asks for none.

    Raises:
        UserError: another process writes in it, or one of another machine has left its lock.
    """
    with ExitStack() as stack:
        other: Holder | None = None
        if distributed.rank() == 0:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except FileNotFoundError:  # as /proc says it
                raise UserError(f"{folder}: no folder can be made there: choose another --output-dir") from None
            stack.callback(_remove_empty, folder)
            other = stack.enter_context(locked(folder / NAME, strict=True))
        other = distributed.from_first(other)
        if other is not None:
            raise UserError(_refusal(folder, other))
        yield


def is_claimed(folder: Path) -> bool:
    """Return whether a folder has files beside those that a kill leaves before there is a config.yaml."""
    return folder.exists() and any(
        path.name not in (NAME, IDENTITY) and not path.name.endswith(".partial") for path in folder.iterdir()
    )


def _refusal(folder: Path, other: Holder) -> str:
    if other.is_near or not other.process:
        return f"{folder} is in use by {other}: wait for it or stop it, or choose another --set name=..."
    return (
        f"{folder} is in use by {other}, which cannot be asked from here: wait for it, or if it no longer runs "
        f"remove {folder / NAME}"
    )


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):  # which is how a folder with files in it is left alone
        folder.rmdir()
