"""How a command ends early, told in a single line: a mistake that the person can mend is exit code 2, what the
machine could not do is 1, a signal 128 and its number."""

from __future__ import annotations

import difflib
import errno
import io
import os
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
ALONE = 15.0  # seconds in which torchrun has ended the others, where the first process met the same error
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class UserError(Exception):
    """A mistake in what was given. The message names the key, file or value and the mend."""


class MachineError(Exception):
    """What the machine could not do, as write to a full disk. The message says what, where and what is kept."""


# of the folder or file that was given: not one, not ours, not to be written
GIVEN = {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP}
GIVEN |= {errno.EACCES, errno.EPERM, errno.EROFS}
FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
MACHINE = FULL | {errno.EIO, errno.EMFILE, errno.ENFILE, getattr(errno, "ESTALE", errno.EIO)}


def in_words(error: OSError, what: str | None = None) -> UserError | MachineError | None:
    """An error of the file system as what a person sees, or None where it is a bug.

    what: what could not be done, where more is known than the name in the error.
    """
    reason = (error.strerror or str(error)).lower()
    text = what if what is not None else str(error.filename or "a file")
    if error.errno in GIVEN:
        return UserError(f"{text}: {reason}: name a folder that you may write in")
    if error.errno in MACHINE:
        mend = "make room" if error.errno in FULL else "look after the disk"
        return MachineError(
            f"{text}: {reason}: what was finished is kept, {mend} and run again, a training with --resume"
        )
    return None


def is_of_worker(error: RuntimeError) -> bool:
    """Whether torch tells with this that a process of data.workers has ended, which may come at any moment."""
    return str(error).startswith("DataLoader worker")


def worker_ended(error: Exception) -> MachineError:
    """The same as what a person sees."""
    return MachineError(
        f"data.workers: a process that makes batches has ended ({error}): use fewer of them, or 0; what was "
        "finished is kept, run again with --resume"
    )


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `, did you mean 'x'?` for the known word closest to `word`, or an empty string."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.7)
    return f", did you mean '{match[0]}'?" if match else ""


def readable(name: str) -> str:
    """A file's name with bytes that are not UTF-8 as escapes such as `\\xe9`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def shown(text: str) -> str:
    """`readable` text in which what moves a terminal's cursor is an escape too."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in readable(text))


@cache
def warn(text: str) -> None:
    """Print a warning as one line on stderr, each text once, and of several processes only in the first."""
    if os.environ.get("RANK", "0") == "0":
        print(f"warning: {text}", file=sys.stderr, flush=True)


@cache
def note(text: str) -> None:
    """Print what a person should know of, as `warn` does, where nothing is wrong."""
    if os.environ.get("RANK", "0") == "0":
        print(text, file=sys.stderr, flush=True)


class StoppedError(KeyboardInterrupt):
    """A signal asked the command to end; like Ctrl-C it is not caught with errors."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@dataclass
class _Asked:
    """What signals have asked of this process: they are its own and nobody else's, so this is not an argument."""

    number: int = 0  # of the signal, 0 for none yet
    held: int = 0  # how many `finish_first` are open


_asked = _Asked()


def asked() -> int:
    """The signal that has asked the command to end, 0 for none; what is held by `finish_first` may look."""
    return _asked.number


@contextmanager
def finish_first() -> Iterator[None]:
    """Let what is inside come to its end before a signal ends the command."""
    _asked.held += 1
    try:
        yield
    finally:
        _asked.held -= 1
    if _asked.number and not _asked.held:
        raise StoppedError(_asked.number)


def _stop(number: int, frame: FrameType | None) -> None:
    """End the command in order, or at once when it was asked before."""
    if _asked.number:
        end_at_once(number, frame)
    _asked.number = number
    if not _asked.held:
        raise StoppedError(number)


def end_at_once(number: int, frame: FrameType | None) -> None:
    """Leave with a signal's exit code, without a word."""
    os._exit(128 + number)


def handle_signals(handler: Handler) -> dict[int, Handler]:
    """Handle `SIGNALS` from now on, but for those that are ignored, as nohup asks for; gives who did before.

    Outside the main thread nothing is changed.
    """
    before: dict[int, Handler] = {}
    with suppress(ValueError):  # another thread
        for number in SIGNALS:
            old = signal.getsignal(number)
            if old != signal.SIG_IGN:
                signal.signal(number, handler)
                before[number] = old
    return before


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Let a signal end the command without a word, as while modules are imported and nothing is begun."""
    before = handle_signals(end_at_once)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


class _Outlived(io.FileIO):
    """Standard output or error whose reader may go, as that of a pipe into `head` does: the rest is lost."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            if error.errno in (errno.EPIPE, errno.EIO):  # a pipe's reader or a terminal is gone
                return memoryview(data).nbytes
            raise


def outlive_readers() -> None:
    """Let a command go on where nobody reads any more what it prints."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:  # closed before the start
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - as long as the command runs
        elif stream is getattr(sys, f"__{name}__"):
            stream.flush()
            raw = io.BufferedWriter(_Outlived(number, "wb", closefd=False))
            lines = stream.line_buffering
            setattr(sys, name, io.TextIOWrapper(raw, stream.encoding, stream.errors, line_buffering=lines))


def exit_code(command: Callable[[], None], again: str = "run again with --resume to go on") -> int:
    """Run a command line; a `UserError` becomes one line and 2, a fault of the machine 1, a signal 128 + it.

    again: how to go on after a signal.
    """
    outlive_readers()
    _asked.number = 0
    before = handle_signals(_stop)
    try:
        command()
        sys.stdout.flush()
    except (UserError, MachineError) as error:
        return _say(error)
    except OSError as error:
        told = in_words(error)
        if told is None:
            raise
        return _say(told)
    except RuntimeError as error:
        if not is_of_worker(error):
            raise
        return _say(worker_ended(error))
    except KeyboardInterrupt as stop:
        number = stop.number if isinstance(stop, StoppedError) else signal.SIGINT
        _say_stopped(number, again)
        return 128 + number
    finally:
        for number, old in before.items():
            signal.signal(number, old)
        _asked.number = 0  # or what trains next in this process would end at once
    return 0


def _say(error: UserError | MachineError) -> int:
    """One line, and under --debug where it came from.

    Of several processes the first says what all of them met; another waits for torchrun to end it, and says what
    it alone has met.
    """
    if os.environ.get("RANK", "0") != "0":
        handle_signals(end_at_once)
        time.sleep(ALONE)
    if "--debug" in sys.argv:
        traceback.print_exc()
    print(f"error: {shown(' '.join(str(error).split()))}", file=sys.stderr)
    return 2 if isinstance(error, UserError) else 1


def _say_stopped(number: int, again: str) -> None:
    by = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
    with suppress(OSError):  # the terminal may be what went
        if os.environ.get("RANK", "0") == "0":
            print(f"\nstopped{by}: what was finished is kept, {again}", file=sys.stderr, flush=True)
