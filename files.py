"""Files that are either the old one or the new one, never half of it, and lock files that say who is at work."""

from __future__ import annotations

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
from typing import IO, Any, BinaryIO, cast

from errors import FULL, MachineError, UserError, finish_first, in_words

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]  # a system without it, such as Windows

# what reading a zip, npz or pt file with flipped bits may raise
ARCHIVE_ERRORS = (zipfile.BadZipFile, zlib.error, struct.error, RuntimeError, ValueError, EOFError, OSError)
LOOK_AGAIN = 0.2  # seconds between two looks at a lock that is waited for
BOOT = Path("/proc/sys/kernel/random/boot_id")  # Linux: one for all containers of a machine, until it starts again


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to disk and rename it to `path`.

    Temporary files that dead processes have left of the same file are removed.

    Raises:
        UserError, MachineError: as `in_one_line`; what was there before is kept.
    """
    for entry in path.parent.glob("*.partial") if path.parent.exists() else ():
        if entry.name.startswith(f".{path.name}.") and _is_left_behind(entry):
            with suppress(OSError):
                entry.unlink()
    with in_one_line(path, lambda: _size(write)):
        file = _open_partial(path)
        partial = Path(file.name)
        try:
            _fill(file, write)
            if fcntl is None:
                file.close()  # such a system does not rename what is open
            partial.replace(path)
            file.close()
        except BaseException:
            with suppress(OSError):  # what a full disk did not take is tried once more
                file.close()
            with suppress(OSError):
                partial.unlink()
            raise


def _fill(file: _Partial, write: Callable[[BinaryIO], object]) -> None:
    try:
        write(file)
    except RuntimeError:
        if file.failure is not None:
            raise file.failure from None  # torch has its own words for a write that failed
        raise
    file.flush()
    os.fsync(file.fileno())


class _Partial(io.BufferedWriter):
    """A file that keeps why a write failed."""

    failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.failure = error
            raise


class _Counter(io.RawIOBase):
    """A file that only counts its bytes."""

    size = position = 0

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self.position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.size}[whence]
        return self.position

    def write(self, data: Any, /) -> int:
        self.position += memoryview(data).nbytes
        self.size = max(self.size, self.position)
        return memoryview(data).nbytes


def _size(write: Callable[[BinaryIO], object]) -> int:
    counter = _Counter()
    write(cast(BinaryIO, counter))
    return counter.size


@contextmanager
def in_one_line(path: Path, needed: Callable[[], int], kept: str | None = None) -> Iterator[None]:
    """Turn a failure to write `path` into one line: what, where, how much it needs and what is kept.

    Args:
        needed: gives the bytes that all of it takes; called only when a write has failed.
        kept: what of it is kept, where that is known better than here.

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
        told = in_words(error, what)
        if told is None:
            raise
        raise told from error


def _open_partial(path: Path) -> _Partial:
    """A temporary file of its own beside `path`, locked while it is open, which tells it from one left behind."""
    while True:
        file = _Partial(io.FileIO(_partial_name(path, f".{path.name}"), "x"))
        if try_lock(file) is not False and _is_still_at(Path(file.name), file):
            return file
        file.close()  # another process takes it for one left behind


def _partial_name(path: Path, start: str) -> Path:
    return path.with_name(f"{start}.{secrets.token_hex(4)}.partial")


def _is_left_behind(partial: Path) -> bool:
    if fcntl is None:
        return True  # such a system does not remove what is open
    with suppress(OSError), open(partial, "r+b") as file:
        return bool(try_lock(file))
    return False


def remove_left_behind(parent: Path) -> None:
    """Remove what dead processes have left of a `new_folder` in `parent`, and its lock file."""
    for lock in parent.glob("*.partial.lock"):
        with locked(lock, strict=True) as other:
            if other is None:
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)


def remove_lock_left_behind(path: Path) -> None:
    """Remove the lock file of a dead process, where nobody will ask for that lock again.

    One that cannot be removed stays: what it guarded may lie in a folder of others, to be read alone.
    """
    if path.exists():
        with suppress(UserError, MachineError), locked(path):
            pass


@contextmanager
def new_folder(folder: Path, *, replace: bool = False) -> Iterator[Path]:
    """A temporary folder to fill, which takes the name `folder` at the end; one that has it by then stays.

    Temporary folders beside it that dead processes have left are removed.

    replace: one that has the name goes, once the new one is whole.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_left_behind(folder.parent)
    partial = _partial_name(folder, folder.name)
    with locked(partial.with_name(f"{partial.name}.lock")):
        try:
            partial.mkdir()
            yield partial
            if replace and folder.exists():
                _exchange(folder, partial)
                return
            try:
                partial.replace(folder)
            except OSError:
                if not folder.exists():
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _exchange(folder: Path, new: Path) -> None:
    """Put `new` in the place of `folder`, which goes; no signal that can be held comes between the two steps."""
    aside = _partial_name(folder, folder.name)
    with locked(aside.with_name(f"{aside.name}.lock")), finish_first():
        folder.replace(aside)
        try:
            new.replace(folder)
        except OSError:
            aside.replace(folder)
            raise
        shutil.rmtree(aside, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Atomically write UTF-8 text."""
    write_atomically(path, lambda file: file.write(text.encode()))


@dataclass(frozen=True)
class Holder:
    """The process that a lock file names."""

    host: str
    process: int
    boot: str = ""  # of the system that it runs in, empty where none is known
    since: str = ""

    @staticmethod
    def this() -> Holder:
        boot = BOOT.read_text(encoding="utf-8").strip() if BOOT.exists() else ""
        return Holder(
            socket.gethostname(), os.getpid(), boot, datetime.now().astimezone().isoformat(" ", "seconds")
        )

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}, since {self.since}" if self.process else "another process"

    @property
    def is_near(self) -> bool:
        """Whether it is, or was before a restart, a process of this machine, in whichever container."""
        here = Holder.this()
        return self.host == here.host or (self.boot != "" and self.boot == here.boot)


@contextmanager
def locked(path: Path, *, wait: bool = False, strict: bool = False) -> Iterator[Holder | None]:
    """Hold a lock file, which vanishes at the end; gives None where it is ours, otherwise who has it.

    A lock ends with its process, however that ends: the system says so where it has locks on files (`flock`),
    otherwise the number of the process does, and then two that start in the same instant are not told apart.

    Args:
        wait: until it is ours.
        strict: one that a process of another machine has left counts as held, since not every shared file system
            tells of locks elsewhere.

    Raises:
        UserError, MachineError: as `in_one_line`.
    """
    while isinstance(taken := _take(path, strict), Holder):
        if not wait:
            yield taken
            return
        time.sleep(LOOK_AGAIN)
    try:
        yield None
    finally:
        if fcntl is None:
            taken.close()  # such a system does not remove what is open
        try:
            with suppress(OSError):
                path.unlink()  # while it is ours: nobody takes a file that is about to vanish
        finally:
            taken.close()


def _take(path: Path, strict: bool) -> BinaryIO | Holder:
    """The lock file, open and naming this process, or who has it."""
    while True:
        if path.is_symlink() or (path.exists() and not path.is_file() and not path.is_dir()):
            raise UserError(f"{path} is a link, a pipe or a device where a lock belongs: remove it")
        with in_one_line(path, lambda: 0, "a lock"):
            file = open(path, "a+b")  # noqa: SIM115 - it stays open as long as it is held
        ours = try_lock(file)
        if ours and not _is_still_at(path, file):
            file.close()  # its holder has removed it meanwhile
            continue
        before = _read_holder(file)
        if ours is False or (before is not None and _counts(before, ours, strict)):
            file.close()
            return before or Holder("", 0)
        _sign(path, file)
        return file


def _sign(path: Path, file: BinaryIO) -> None:
    """Write this process into a lock file that it has; without room for that the file goes."""
    record = json.dumps(asdict(Holder.this())).encode()
    try:
        with in_one_line(path, lambda: len(record), "a lock"):
            file.truncate(0)
            file.write(record)
            file.flush()
    except BaseException:
        with suppress(OSError):
            path.unlink()
        with suppress(OSError):
            file.close()
        raise


def try_lock(file: IO[Any]) -> bool | None:
    """Whether the system's lock on an open file is now ours; None where there is no such lock."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system that has no locks
        return None
    return True


def _is_still_at(path: Path, file: IO[Any]) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _read_holder(file: BinaryIO) -> Holder | None:
    file.seek(0)
    try:
        found = Holder(**json.loads(file.read()))
    except (ValueError, TypeError, RecursionError):  # new, or its holder died as it wrote, or a stranger's
        return None
    named = all(isinstance(text, str) for text in (found.host, found.boot, found.since))
    return found if named and type(found.process) is int and 0 < found.process < 2**31 else None


def _counts(holder: Holder, ours: bool | None, strict: bool) -> bool:
    """Whether one whom a lock file names still has it, although the system may say that it is ours."""
    if not holder.is_near:
        return strict
    return not ours and _is_running(holder.process)


def _is_running(process: int) -> bool:
    if process == os.getpid():
        return False  # of an earlier start: in a container each start may be process 1
    if os.name == "nt":
        return True  # cannot be asked there without doing harm
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # of another user
    return True
