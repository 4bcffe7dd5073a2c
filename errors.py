"""The one exception that means "the person can mend this": shown as a single line, exit code 2."""

from __future__ import annotations

import difflib
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from functools import cache


class UserError(Exception):
    """A mistake in what was given. The message names the key, file or value and the mend."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `, did you mean 'x'?` for the known word closest to `word`, or an empty string."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
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


def exit_code(command: Callable[[], None]) -> int:
    """Run a command line; a `UserError` becomes one line and 2, with its traceback under --debug, Ctrl-C 130."""
    try:
        command()
    except UserError as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        print(f"error: {shown(' '.join(str(error).split()))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped: what was finished is kept, run again with --resume to go on", file=sys.stderr)
        return 130
    return 0
