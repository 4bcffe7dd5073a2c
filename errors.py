"""What a person sees of an error as a single line: a mistake that they can mend is exit code 2, what the machine
could not do is 1."""

from __future__ import annotations

import difflib
import errno
import io
import os
import sys
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any


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


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `, did you mean 'x'?` for the known word closest to `word`, or an empty string."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f", did you mean '{match[0]}'?" if match else ""


@cache
def warn(text: str) -> None:
    """Print a warning as one line on stderr, each text once, and of several processes only in the first."""
    if os.environ.get("RANK", "0") == "0":
        print(f"warning: {text}", file=sys.stderr, flush=True)


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


def exit_code(command: Callable[[], None]) -> int:
    """Run a command line; a `UserError` becomes one line and 2, a fault of the machine 1, Ctrl-C 130."""
    outlive_readers()
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
    except KeyboardInterrupt:
        print("\nstopped: what was finished is kept, run again with --resume to go on", file=sys.stderr)
        return 130
    return 0


def _say(error: UserError | MachineError) -> int:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return 2 if isinstance(error, UserError) else 1
