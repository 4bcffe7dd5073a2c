"""Whether decoded images and a teacher's outputs can be kept where the config says, asked beforehand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from errors import UserError


def see_that_it_can_be_written(folder: Path) -> None:
    """Raise `UserError` where data.cache_dir is no folder, or one that can neither be made nor written in."""
    try:
        found = next(part for part in (folder.absolute(), *folder.absolute().parents) if _is_there(part))
        usable = found.is_dir()
    except OSError as error:  # a name too long, links that loop
        raise UserError(f"data.cache_dir {folder}: {error.strerror}: name another folder") from None
    if not usable:
        raise UserError(f"data.cache_dir {folder}: {found} is no folder: name another one")
    if not os.access(found, os.W_OK | os.X_OK):
        raise UserError(f"data.cache_dir {folder}: {found} cannot be written in: name another folder")


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


@contextmanager
def gone_if_empty(folder: Path) -> Iterator[None]:
    """Folders that had to be made down to `folder`, the config's data.cache_dir, go where nothing came of them."""
    missing = [part for part in (folder, *folder.parents) if not part.exists()]
    try:
        yield
    except BaseException:
        with suppress(OSError):  # one holds something, and so do those above it
            for part in missing:
                part.rmdir()
        raise
