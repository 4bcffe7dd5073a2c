"""The one exception that means "the person can mend this": shown as a single line, exit code 2."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Iterable
from functools import cache


class UserError(Exception):
    """A mistake in what was given. The message names the key, file or value and the mend."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `, did you mean 'x'?` for the known word closest to `word`, or an empty string."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f", did you mean '{match[0]}'?" if match else ""


@cache
def warn(text: str) -> None:
    """Print a warning as one line on stderr, each text once, and of several processes only in the first."""
    if os.environ.get("RANK", "0") == "0":
        print(f"warning: {text}", file=sys.stderr, flush=True)


def exit_code(command: Callable[[], None]) -> int:
    """Run a command line; a `UserError` becomes one line and 2, Ctrl-C one line and 130."""
    try:
        command()
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped: what was finished is kept, run again with --resume to go on", file=sys.stderr)
        return 130
    return 0
