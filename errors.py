"""How a command ends early: by a mistake that the person can mend, or by a signal; a single line either way."""

from __future__ import annotations

import difflib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], Any] | int | None  # as the module signal has them
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class UserError(Exception):
    """A mistake in what was given. The message names the key, file or value and the mend."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `, did you mean 'x'?` for the known word closest to `word`, or an empty string."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f", did you mean '{match[0]}'?" if match else ""


def shown(text: str) -> str:
    """`text` with what is not UTF-8, or moves a terminal's cursor, as an escape such as `\\xe9`."""
    readable = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in readable)


@cache
def warn(text: str) -> None:
    """Print a warning as one line on stderr, each text once, and of several processes only in the first."""
    if os.environ.get("RANK", "0") == "0":
        print(f"warning: {text}", file=sys.stderr, flush=True)


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


def exit_code(command: Callable[[], None], again: str = "run again with --resume to go on") -> int:
    """Run a command line; a `UserError` becomes one line and 2, with its traceback under --debug,
    a signal such as Ctrl-C one line and 128 + it.

    again: how to go on after a signal.
    """
    _asked.number = 0
    before = handle_signals(_stop)
    try:
        command()
    except UserError as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        print(f"error: {shown(' '.join(str(error).split()))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        number = stop.number if isinstance(stop, StoppedError) else signal.SIGINT
        _say_stopped(number, again)
        return 128 + number
    finally:
        for number, old in before.items():
            signal.signal(number, old)
    return 0


def _say_stopped(number: int, again: str) -> None:
    by = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
    with suppress(OSError):  # the terminal may be what went
        if os.environ.get("RANK", "0") == "0":
            print(f"\nstopped{by}: what was finished is kept, {again}", file=sys.stderr, flush=True)
