"""Atomic writes and file locks."""

from __future__ import annotations

import glob
import io
import json
import os
import secrets
import shutil
import socket
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from errors import FULL, MachineError, UserError, defer_signals, to_user_error

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]  # Windows

# what reading a zip, npz or pt file with flipped bits may raise
ARCHIVE_ERRORS = (zipfile.BadZipFile, zlib.error, struct.error, RuntimeError, ValueError, EOFError, OSError)
POLL_SECONDS = 0.2  # between two attempts to take a lock
BOOT = Path("/proc/sys/kernel/random/boot_id")  # Linux: shared by all containers of a machine, until it restarts


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_atomically(path, lambda file: file.write(text.encode()))


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to disk and rename it to `path`.

    Temporary files of the same name that dead processes left are removed.

    Raises:
        UserError, MachineError: as `wrap_io_errors`; an earlier file is kept.
    """
    for entry in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 8}.partial"):
        if _is_abandoned(entry):
            entry.unlink(missing_ok=True)
    with wrap_io_errors(path, lambda: _count_bytes(write)):
        file = _open_partial(path)
        try:
            _fill(file, write)
            if fcntl is None:
                file.close()  # Windows does not rename open files
            os.replace(file.name, path)
            file.close()
        except BaseException:
            with suppress(OSError):  # closing writes what is buffered, and fails again on a full disk
                file.close()
            with suppress(OSError):
                os.unlink(file.name)
            raise


class _Partial(io.BufferedWriter):
    """A file that remembers why a write failed, since torch hides the reason."""

    failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.failure = error
            raise


def _fill(file: _Partial, write: Callable[[BinaryIO], object]) -> None:
    try:
        write(file)
    except RuntimeError:
        if file.failure is not None:
            raise file.failure from None
        raise
    file.flush()
    os.fsync(file.fileno())


def _count_bytes(write: Callable[[BinaryIO], object]) -> int:
    buffer = io.BytesIO()
    write(buffer)
    return len(buffer.getbuffer())


def _open_partial(path: Path) -> _Partial:
    """Open a temporary file beside `path`. Its lock shows other processes that it is in use."""
    while True:
        file = _Partial(io.FileIO(path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial"), "x"))
        if _try_lock(file) is not False and os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # another process removed it as abandoned before it was locked


def _is_abandoned(partial: Path) -> bool:
    if fcntl is None:
        return True  # Windows does not remove open files
    with suppress(OSError), open(partial, "r+b") as file:
        return bool(_try_lock(file))
    return False


def _try_lock(file: io.BufferedWriter | io.BufferedRandom) -> bool | None:
    """Take the system's lock on an open file. None where there are no such locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


@contextmanager
def wrap_io_errors(path: Path, needed: Callable[[], int], kept: str | None = None) -> Iterator[None]:
    """Turn a failure to write `path` into one line: what, where, the space needed and what is kept.

    Args:
        path: for the message.
        needed: gives the size in bytes; called only after a failure.
        kept: what is kept, where the caller knows more than whether `path` exists.

    Raises:
        UserError: no folder, no permission, read-only.
        MachineError: a full disk, a quota, a broken disk.
    """
    try:
        yield
    except OSError as error:
        what = f"{path} cannot be written"
        if error.errno in FULL:
            free = shutil.disk_usage(path.parent).free
            kept = kept or ("the one before is kept" if path.exists() else "nothing of it is kept")
            what += f" ({needed() / 1e6:,.3f} MB needed, {free / 1e6:,.3f} MB free, {kept})"
        told = to_user_error(error, what)
        if told is None:
            raise
        raise told from error


@contextmanager
def create_folder(folder: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary folder to fill, which is renamed to `folder` at the end.

    A second process waits for the first. What a dead process left is removed; its lock shows that it was one.

    replace: whether it takes the place of an existing `folder`, which otherwise stays.

    Raises:
        UserError: a file or folder that this program did not make is in the way.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial, aside = (folder.with_name(f"{folder.name}.{end}") for end in ("partial", "replaced.partial"))
    lock = partial.with_name(f"{partial.name}.lock")
    is_left = lock.exists()
    with hold_lock(lock, wait=True):
        for path in (partial, aside):
            if os.path.lexists(path) and not is_left:
                raise UserError(f"{path} is in the way, and this program did not make it: move it")
        if aside.exists() and not folder.exists():  # a kill came between the two renames below
            os.replace(aside, folder)
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            yield partial
            with defer_signals():
                if replace and folder.exists():
                    os.replace(folder, aside)
                if not folder.exists():
                    os.replace(partial, folder)
        finally:
            if aside.exists() and not folder.exists():
                os.replace(aside, folder)
            shutil.rmtree(aside, ignore_errors=True)
            shutil.rmtree(partial, ignore_errors=True)


def remove_abandoned_folders(parent: Path) -> None:
    """Remove temporary folders of `create_folder` that dead processes left in `parent`."""
    for lock in parent.glob("*.partial.lock"):
        with hold_lock(lock, strict=True) as other:
            if other is None:
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)


def remove_abandoned_lock(path: Path) -> None:
    """Remove the lock file of a dead process, unless it lies in a read-only folder."""
    if path.exists():
        with suppress(UserError, MachineError), hold_lock(path):
            pass


@dataclass(frozen=True)
class LockOwner:
    """The process that owns a lock, as its lock file names it."""

    host: str = ""
    process: int = 0  # 0 where the file names none
    boot: str = ""  # of the system it runs in, empty where unknown
    since: str = ""

    @staticmethod
    def from_this_process() -> LockOwner:
        """Return this process."""
        boot = BOOT.read_text(encoding="utf-8").strip() if BOOT.exists() else ""
        now = datetime.now().astimezone().isoformat(" ", "seconds")
        return LockOwner(socket.gethostname(), os.getpid(), boot, now)

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}, since {self.since}" if self.process else "another process"

    @property
    def is_same_host(self) -> bool:
        """Return whether the process belongs to this machine, in any container and before any restart."""
        here = LockOwner.from_this_process()
        return self.host == here.host or (self.boot != "" and self.boot == here.boot)


@contextmanager
def hold_lock(path: Path, *, wait: bool = False, strict: bool = False) -> Iterator[LockOwner | None]:
    """Hold a lock file, which is removed at the end. Yields None while this process has it, otherwise the owner.

    The system releases the lock of a process that ends in any way.

    Args:
        path: of the lock file.
        wait: until the lock is free.
        strict: refuse a lock that names another machine, since not every shared file system knows of its locks.

    Raises:
        UserError, MachineError: as `wrap_io_errors`.
    """
    lock = _acquire(path, wait)
    owner = _read_owner(path)
    if lock is None or (strict and owner is not None and not owner.is_same_host):
        if lock is not None:
            lock.release()
        yield owner or LockOwner()
        return
    try:
        record = json.dumps(asdict(LockOwner.from_this_process())).encode()
        with wrap_io_errors(path, lambda: len(record), "a lock"), suppress(PermissionError):  # Windows
            path.write_bytes(record)
        yield None
    finally:
        try:
            with suppress(OSError):
                path.unlink()  # before the release, so that nobody takes a file that is about to vanish
        finally:
            lock.release()


def _acquire(path: Path, wait: bool) -> FileLock | None:
    if path.is_symlink() or (path.exists() and not path.is_file() and not path.is_dir()):
        raise UserError(f"{path} is a link, a pipe or a device where a lock belongs: remove it")
    lock = FileLock(path)
    while True:
        try:
            with wrap_io_errors(path, lambda: 0, "a lock"):
                lock.acquire(timeout=0)
            return lock
        except Timeout:
            if not wait:
                return None
            time.sleep(POLL_SECONDS)


def _read_owner(path: Path) -> LockOwner | None:
    try:
        found = LockOwner(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError):  # new, gone, or of a process that died as it wrote
        return None
    is_text = all(isinstance(text, str) for text in (found.host, found.boot, found.since))
    return found if is_text and type(found.process) is int and 0 < found.process < 2**31 else None
