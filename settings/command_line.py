"""An argument parser that guesses and ignores nothing; each refusal is a `UserError` of one line."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from errors import UserError, suggest_nearest


class StoreOnce(argparse.Action):
    """Store a value, and refuse an option that is given twice."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        if option_string is not None and self.dest in parser.given:
            parser.error(f"{option_string} stands twice, keep one of them")
        if option_string is not None or values is not None:
            parser.given.add(self.dest)
        setattr(namespace, self.dest, values)


class CommandLine(argparse.ArgumentParser):
    """An argument parser without abbreviations that suggests the nearest option for a wrong one."""

    def __init__(self, description: str | None) -> None:
        super().__init__(
            description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
        )
        self.register("action", None, StoreOnce)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message.removeprefix('argument ')} ({self.prog} --help lists all options)")

    def read(self, words: Sequence[str] | None = None) -> tuple[argparse.Namespace, set[str]]:
        """Return the arguments, and the names of those that were given.

        Raises:
            UserError: an unknown option, an invalid value, or an option that is given twice.
        """
        self.given: set[str] = set()
        arguments, rest = self.parse_known_args(words)
        options = [text for action in self._actions for text in action.option_strings]
        for word in rest:
            name = word.partition("=")[0]
            if name.startswith("-"):
                raise UserError(
                    f"{name} is no option of {self.prog}{suggest_nearest(name, options)} (--help lists all)"
                )
        if rest:
            raise UserError(f"'{rest[0]}' is one argument too many: {self.prog} --help shows the usage")
        changed = {name for name, value in vars(arguments).items() if value != self.get_default(name)}
        return arguments, self.given | changed


def match_word(*words: str) -> Callable[[str], str]:
    """Return the type of an option that takes one of some words."""

    def match(text: str) -> str:
        if text not in words:
            raise argparse.ArgumentTypeError(
                f"'{text}' is none of {', '.join(words)}{suggest_nearest(text, words)}"
            )
        return text

    return match


def read_path(text: str) -> Path:
    """Return the value of an option that takes a file or a folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty, name a file or a folder")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{text} is not UTF-8, rename it") from None
    return Path(os.path.expanduser(text))


def read_folder(text: str) -> Path:
    """Return the value of an option that takes a folder, which need not exist."""
    found = read_path(text)
    for part in (found, *found.parents):
        try:
            exists, is_folder = part.is_symlink() or part.exists(), part.is_dir()
        except OSError as error:  # a name too long, no permission to look
            raise argparse.ArgumentTypeError(f"{part}: {error.strerror}, name another folder") from None
        if exists and not is_folder:
            raise argparse.ArgumentTypeError(f"{part} is no folder, name another one")
        if exists:
            break
    return found
