"""Command lines that refuse what they would have to guess or ignore, each refusal a `UserError` of one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from errors import UserError, nearest


class CommandLine(argparse.ArgumentParser):
    """An argument parser without abbreviations, that takes an option once and names the nearest to a wrong one."""

    def __init__(self, description: str | None) -> None:
        super().__init__(
            description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
        )

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} ({self.prog} --help lists all options)")

    def read(self, words: Sequence[str] | None = None) -> tuple[argparse.Namespace, set[str]]:
        """The arguments, and which of them were given, by the names that they have among the arguments.

        Raises:
            UserError: an option or a value that is not taken, or an option that stands twice.
        """
        words = sys.argv[1:] if words is None else words
        arguments, rest = self.parse_known_args(words)
        options = {text: action for action in self._actions for text in action.option_strings}
        for word in rest:
            name = word.partition("=")[0]
            if name.startswith("-"):
                raise UserError(f"{name} is no option of {self.prog}{nearest(name, options)} (--help lists all)")
        if rest:
            raise UserError(f"'{rest[0]}' is one argument too many: {self.prog} --help shows how it is called")
        found = [options[name] for word in words if (name := word.partition("=")[0]) in options]
        for action in found:
            takes_one = action.nargs != 0 and not isinstance(action.default, list)
            if takes_one and found.count(action) > 1:
                raise UserError(f"{action.option_strings[0]} stands twice, keep one of them")
        positional = {action.dest for action in self._actions if not action.option_strings}
        placed = {dest for dest in positional if getattr(arguments, dest) is not None}
        return arguments, placed | {action.dest for action in found}


def one_of(*words: str) -> Callable[[str], str]:
    """The type of an option that takes one of some words."""

    def read(text: str) -> str:
        if text not in words:
            hint = nearest(text, words)
            raise argparse.ArgumentTypeError(f"'{text}' is none of {', '.join(words)}{hint}")
        return text

    return read


def read_path(text: str) -> Path:
    """The type of an option that takes a file or a folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty, name a file or a folder")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{text} is not UTF-8, rename it") from None
    return Path(text)


def read_folder(text: str) -> Path:
    """The type of an option that takes a folder which is there or can be made."""
    found = read_path(text)
    for part in (found, *found.parents):
        try:
            there, usable = part.is_symlink() or part.exists(), part.is_dir()
        except OSError as error:  # a name too long, no permission to look
            raise argparse.ArgumentTypeError(f"{part}: {error.strerror}, name another folder") from None
        if there and not usable:
            raise argparse.ArgumentTypeError(f"{part} is no folder, name another one")
        if there:
            break
    return found
