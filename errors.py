"""Errors, warnings and signals as a user sees them.

Exit codes: 2 for invalid user input, 1 for what the machine could not do, 128 + its number for a signal.
"""

from __future__ import annotations

import difflib
import errno
import io
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], Any] | int | None  # as the module signal has them
RANK_DELAY = 15.0  # seconds in which torchrun ends the other processes when the first met the same error
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


# all control characters but tab, line feed and carriage return, and those that turn the direction of writing
STEERING = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class UserError(Exception):
    """Invalid user input. The message names the key, file or value and the fix."""


class MachineError(Exception):
    """Failure of the machine, such as a full disk. The message says what, where and what is kept."""


GIVEN = {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP}
GIVEN |= {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOLCK}
FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
# an OSError that says how a file is made, as a seek beyond its ends does, and not that the system cannot read it
FORMAT = {None, errno.EINVAL, errno.ENOENT, errno.ENOTDIR, errno.EISDIR}
OUT_OF_MEMORY = ("DefaultCPUAllocator", "CUDA error: out of memory", "STATUS_ALLOC_FAILED")  # of torch's messages
MACHINE = FULL | {errno.EIO, errno.EMFILE, errno.ENFILE, getattr(errno, "ESTALE", errno.EIO)}


def to_user_error(error: Exception, what: str | None = None) -> UserError | MachineError | None:
    """Return an error as one for users, or None where it is a bug.

    what: what could not be done, where the caller knows more than the file name in the error.
    """
    if isinstance(error, UserError | MachineError):
        return error
    if isinstance(error, RuntimeError) and is_dataloader_error(error):
        return make_worker_error(error)
    if is_out_of_memory(error):
        return MachineError(
            f"out of memory ({(str(error) or 'MemoryError').splitlines()[0][:200]}): use a smaller batch_size, "
            "data.image_size or teacher.cached_views; what was finished is kept, run again "
            "(a training with --resume)"
        )
    if not isinstance(error, OSError):
        return None
    text = f"{what or error.filename or 'a file'}: {(error.strerror or str(error)).lower()}"
    if error.errno in GIVEN:
        return UserError(f"{text}: name a folder that you may write in")
    if error.errno in MACHINE:
        hint = "make room" if error.errno in FULL else "check the disk"
        return MachineError(f"{text}: what was finished is kept, {hint} and run again, a training with --resume")
    return None


def raise_read_failure(path: object, error: Exception) -> None:
    """Raise `MachineError` where the system could not read a file, which does not make the file damaged."""
    if isinstance(error, OSError) and error.errno not in FORMAT:
        hint = {errno.EMFILE: "raise ulimit -n", errno.EACCES: "make it readable", errno.EPERM: "make it readable"}
        raise MachineError(
            f"{path} cannot be read ({(error.strerror or str(error)).lower()}): nothing was removed, "
            f"{hint.get(error.errno or 0, 'check the disk')} and run again"
        ) from error


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error says that the memory of the host or the GPU is full."""
    names = {kind.__name__ for kind in type(error).__mro__}  # torch's, which is not imported here
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in OUT_OF_MEMORY)
    )


def is_dataloader_error(error: RuntimeError) -> bool:
    """Return whether torch reports with this error that a process of data.workers ended."""
    return str(error).startswith("DataLoader worker")


def make_worker_error(error: Exception) -> MachineError:
    """Return the error for users about a process of data.workers that ended."""
    return MachineError(
        f"data.workers: a process that makes batches has ended ({error}): use fewer of them, or 0; what was "
        "finished is kept, run again with --resume"
    )


def suggest_nearest(word: str, known: Iterable[str]) -> str:
    """Return `, did you mean 'x'?` for the known word closest to `word`, or an empty string."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.7)
    return f", did you mean '{match[0]}'?" if match else ""


def make_readable(name: str) -> str:
    """Return a file's name with bytes that are not UTF-8 as escapes such as `\\xe9`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def make_printable(text: str) -> str:
    """Return text in which control characters and bytes that are not UTF-8 are escapes."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in make_readable(text))


@cache
def warn(text: str) -> None:
    """Print a warning once, as one line on stderr; of several processes only the first does."""
    _print_first_process(make_printable(f"warning: {text}"))


@cache
def info(text: str) -> None:
    """Print a line on stderr once; of several processes only the first does."""
    _print_first_process(make_printable(text))


def _print_first_process(text: str) -> None:
    if _is_first_process():
        print(text, file=sys.stderr, flush=True)


def _is_first_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


class StoppedError(KeyboardInterrupt):
    """A signal ends the command; like Ctrl-C it is not caught with errors."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@dataclass
class _SignalState:
    """Signals of this process."""

    pending: int = 0  # number of the signal that ends the command, 0 for none yet
    deferrals: int = 0  # how many `defer_signals` are open


_state = _SignalState()


def pending_signal() -> int:
    """Return the signal that is about to end the command, 0 for none. For use within `defer_signals`."""
    return _state.pending


@contextmanager
def defer_signals() -> Iterator[None]:
    """Let the block finish before a signal ends the command."""
    _state.deferrals += 1
    try:
        yield
    finally:
        _state.deferrals -= 1
    if _state.pending and not _state.deferrals:
        raise StoppedError(_state.pending)


def _stop(number: int, frame: FrameType | None) -> None:
    """End the command in order; a second signal ends it immediately."""
    if _state.pending:
        exit_immediately(number, frame)
    _state.pending = number
    if not _state.deferrals:
        raise StoppedError(number)


def exit_immediately(number: int, frame: FrameType | None) -> None:
    """Exit with the code of a signal and no message."""
    os._exit(128 + number)


def handle_signals(handler: Handler) -> dict[int, Handler]:
    """Handle `SIGNALS` from now on, except ignored ones (nohup); return the handlers before.

    Outside the main thread nothing changes.
    """
    before: dict[int, Handler] = {}
    with suppress(ValueError):  # another thread
        for number in SIGNALS:
            old = signal.getsignal(number)
            if old != signal.SIG_IGN:
                signal.signal(number, handler)
                before[number] = old
    return before


def _restore_signals(handlers: dict[int, Handler]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


@contextmanager
def exit_on_signal() -> Iterator[None]:
    """Let a signal exit with no message, as while modules are imported and nothing has begun."""
    before = handle_signals(exit_immediately)
    try:
        yield
    finally:
        _restore_signals(before)


class _PrintableText(io.TextIOWrapper):
    """Text in which control characters are escapes: names in files and folders cannot steer the terminal."""

    def write(self, text: str, /) -> int:
        return super().write(STEERING.sub(lambda found: ascii(found[0])[1:-1], text))


class _PipeOutput(io.FileIO):
    """Standard output or error whose reader may close the pipe; the rest is discarded then."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self.fileno())
            if error.errno in (errno.EPIPE, errno.EIO):  # a pipe's reader or a terminal is gone
                return memoryview(data).nbytes
            raise


def _ignore_broken_pipe() -> None:
    """Let a command continue when the reader of its output is gone, as `head` is, or takes no such letter."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is not None and stream is getattr(sys, f"__{name}__"):
            stream.flush()
            raw = io.BufferedWriter(_PipeOutput(number, "wb", closefd=False))
            lines = stream.line_buffering
            setattr(sys, name, _PrintableText(raw, stream.encoding, "backslashreplace", line_buffering=lines))


def run_command(command: Callable[[], None], again: str = "run again with --resume to go on") -> int:
    """Run a command line and return its exit code; an error for users is one line.

    again: how to continue after a signal.
    """
    _ignore_broken_pipe()
    _state.pending = 0
    before = handle_signals(_stop)
    try:
        command()
        print(end="", flush=True)
    except KeyboardInterrupt as stop:
        number = stop.number if isinstance(stop, StoppedError) else signal.SIGINT
        _report_stop(number, again)
        return 128 + number
    except Exception as error:
        told = to_user_error(error)
        if told is None:
            raise
        return _report_error(told)
    finally:
        _restore_signals(before)
        _state.pending = 0  # or a later training in this process would end at its first step
    return 0


def _report_error(error: UserError | MachineError) -> int:
    """Print one line, with --debug after the traceback, and return the exit code.

    The first of several processes speaks for all. Another one waits until torchrun ends it, and speaks if it alone
    met the error.
    """
    if not _is_first_process():
        handle_signals(exit_immediately)
        time.sleep(RANK_DELAY)
    if "--debug" in sys.argv:
        traceback.print_exc()
    print(f"error: {make_printable(' '.join(str(error).split()))}", file=sys.stderr)
    return 2 if isinstance(error, UserError) else 1


def _report_stop(number: int, again: str) -> None:
    by = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
    with suppress(OSError):  # the terminal may be gone
        _print_first_process(f"\nstopped{by}: what was finished is kept, {again}")
