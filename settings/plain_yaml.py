"""YAML of plain values, with limits on size, depth and aliases that hold before anything is built.

Numbers are those that a reader sees: 1:30 stays a word (YAML makes 90 of it), a date too, and 010 is refused.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import yaml

from errors import UserError

MAX_BYTES = 1_000_000
MAX_NODES = 10_000  # keys and values, each alias counted as all that it stands for
MAX_DEPTH = 50
TOO_LONG = f"more than {MAX_BYTES:,} bytes are no config, keep what differs from the defaults"
PREFIX = "tag:yaml.org,2002:"
TAGS = ("null", "bool", "int", "float", "str", "seq", "map")


class _RefusedError(yaml.YAMLError):
    """Valid YAML that is no config; the message says how to fix it."""


class _Loader(yaml.SafeLoader):
    """Plain values without repeated keys, within the limits."""

    depth = nodes = deepest = 0

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.sizes: dict[yaml.Node, tuple[int, int]] = {}  # nodes and depth of each node that is complete

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        is_alias, before, outer = self.check_event(yaml.AliasEvent), self.nodes, self.deepest
        self.nodes, self.depth = self.nodes + 1, self.depth + 1
        self.deepest = self.depth
        self._check_limits()
        node = super().compose_node(parent, index)
        assert node is not None  # of a document that has a node
        if is_alias and node not in self.sizes:
            raise _RefusedError(f"line {node.start_mark.line + 1} is part of itself, leave out the alias")
        if is_alias:
            size, height = self.sizes[node]
            self.nodes, self.deepest = before + size, self.depth + height
            self._check_limits()
        else:
            self.sizes[node] = self.nodes - before, self.deepest - self.depth
        self.depth, self.deepest = self.depth - 1, max(outer, self.deepest)
        return node

    def _check_limits(self) -> None:
        if self.deepest > MAX_DEPTH:
            raise _RefusedError(f"it is nested deeper than {MAX_DEPTH} levels, write it flatter")
        if self.nodes > MAX_NODES:
            raise _RefusedError(f"it has more than {MAX_NODES:,} keys and values, aliases included: write fewer")

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise _RefusedError(f"a key that is a list or a section (line {line}), keys are words")
            if key.value in seen:
                raise _RefusedError(f"{key.value} (line {line}) stands twice, keep one of them")
            seen.add(key.value)
            if key.tag != f"{PREFIX}merge":
                key.tag = f"{PREFIX}str"  # keys are words, whatever they look like
        return node

    def construct_number(self, node: yaml.ScalarNode) -> Any:
        text = str(self.construct_scalar(node))
        if ":" in text:
            return text
        if len(digits := text.lstrip("+-")) > 1 and digits[0] == "0" and digits.isdigit():
            raise _RefusedError(
                f"{text} (line {node.start_mark.line + 1}) reads as octal: leave out the leading 0"
            )
        return self.construct_yaml_int(node) if node.tag == f"{PREFIX}int" else self.construct_yaml_float(node)


_Loader.yaml_constructors = {
    **{f"{PREFIX}{tag}": _Loader.yaml_constructors[f"{PREFIX}{tag}"] for tag in TAGS},
    f"{PREFIX}int": _Loader.construct_number,
    f"{PREFIX}float": _Loader.construct_number,
    f"{PREFIX}timestamp": _Loader.construct_yaml_str,
    None: _Loader.construct_undefined,
}


def parse(text: str, where: str) -> Any:
    """Return the plain values of a YAML text.

    Raises:
        UserError: text that is not YAML, or YAML that is no config; `where` begins the message.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise UserError(f"{where}: {TOO_LONG}")
    if "\0" in text:
        raise UserError(f"{where}: it contains a NUL byte: save it as UTF-8")
    try:
        return _Loader(text).get_single_data()
    except _RefusedError as error:
        raise UserError(f"{where}: {error}") from None
    except yaml.MarkedYAMLError as error:
        line = f" at line {error.problem_mark.line + 1}" if error.problem_mark is not None else ""
        raise UserError(
            f"{where}: not valid YAML{line} ({error.problem}), check quotes, brackets and indentation"
        ) from None
    except (yaml.YAMLError, ValueError, TypeError, LookupError, ArithmeticError):  # numbers that are none
        raise UserError(f"{where}: not valid YAML, check numbers, quotes and brackets") from None


def read_text(path: Path) -> str:
    """Return the text of a config file.

    Raises:
        UserError: no such file, a folder, a device or a pipe, a file that is too long or no text.
    """
    try:
        kind = path.stat().st_mode
        if not stat.S_ISREG(kind):
            what = "a folder" if stat.S_ISDIR(kind) else "a device or a pipe"
            raise UserError(f"config {path}: it is {what}; give a YAML file, those shipped are in configs/")
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise UserError(f"config {path}: {TOO_LONG}")
        return content.decode("utf-8")
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError of links that loop
        reason = getattr(error, "strerror", None) or "not a text file"
        raise UserError(f"config {path}: {reason}; give a YAML file, those shipped are in configs/") from None
