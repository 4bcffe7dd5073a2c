"""YAML of plain values, refused where it is larger, deeper or more tangled than any config, before it is built.

Numbers are those that a reader sees: 1:30 stays a word (YAML makes 90 of it), a date too, and 010 is refused.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from errors import UserError

MOST_BYTES = 1_000_000
MOST_NODES = 10_000  # keys and values, each alias counted as all that it stands for
DEEPEST = 50
TOO_LONG = f"more than {MOST_BYTES:,} bytes are no config, keep what differs from the defaults"
SCALAR_TAGS = ("null", "bool", "int", "float", "str", "merge", "timestamp", "value")
PLAIN_TAGS = (*SCALAR_TAGS, "seq", "map")
PREFIX = "tag:yaml.org,2002:"


class _Refused(yaml.YAMLError):
    """What is YAML and no config: the message says what and how to mend it."""


class _Loader(yaml.SafeLoader):
    """Plain values alone; depth and number of nodes are limited while the text is read."""

    depth = nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth, self.nodes = self.depth + 1, self.nodes + 1
        if self.depth > DEEPEST:
            raise _Refused(f"it is nested deeper than {DEEPEST} levels, write it flatter")
        if self.nodes > MOST_NODES:
            raise _Refused(f"it has more than {MOST_NODES:,} keys and values, keep what a config needs")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_number(self, node: yaml.Node) -> Any:
        assert isinstance(node, yaml.ScalarNode)  # a number's tag on anything else is refused by `_measure`
        text = str(node.value)
        if ":" in text:
            return text
        if len(digits := text.lstrip("+-")) > 1 and digits[0] == "0" and digits.isdigit():
            raise _Refused(f"{text} (line {node.start_mark.line + 1}) reads as octal: leave out the leading 0")
        if node.tag == f"{PREFIX}int":
            return self.construct_yaml_int(node)
        return self.construct_yaml_float(node)


yaml.add_constructor(f"{PREFIX}int", _Loader.construct_number, Loader=_Loader)
yaml.add_constructor(f"{PREFIX}float", _Loader.construct_number, Loader=_Loader)
yaml.add_constructor(f"{PREFIX}timestamp", _Loader.construct_yaml_str, Loader=_Loader)


def parse(text: str, where: str) -> Any:
    """The plain values of a YAML text.

    Raises:
        UserError: text that is not YAML, or YAML that is no config; `where` begins the message.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MOST_BYTES:
        raise UserError(f"{where}: {TOO_LONG}")
    if "\0" in text:
        raise UserError(f"{where}: it holds a NUL byte, as no text does: save it as UTF-8")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _measure(node, {}, set())
        return loader.construct_document(node)
    except _Refused as error:
        raise UserError(f"{where}: {error}") from None
    except (yaml.YAMLError, ValueError, TypeError, LookupError, ArithmeticError) as error:
        # other errors than YAML's own are of numbers and dates that are none
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark is not None else ""
        raise UserError(f"{where}: not valid YAML{line}, check quotes, brackets and indentation") from None


def _measure(node: yaml.Node, known: dict[int, tuple[int, int]], above: set[int]) -> tuple[int, int]:
    """Number of nodes and depth of what a node becomes with its aliases written out.

    Args:
        known: of the nodes that were measured before.
        above: the nodes that this one is part of.
    """
    if id(node) in above:
        raise _Refused(f"line {node.start_mark.line + 1} is part of itself, leave out the alias")
    if id(node) in known:
        return known[id(node)]
    kind = node.tag.removeprefix(PREFIX)
    if kind not in PLAIN_TAGS:
        line = node.start_mark.line + 1
        raise _Refused(f"the tag !{kind.rpartition('!')[2]} (line {line}) is not taken, give plain values")
    if kind in SCALAR_TAGS and not isinstance(node, yaml.ScalarNode):
        raise _Refused(f"the tag !!{kind} (line {node.start_mark.line + 1}) is of words, not of lists or sections")
    _refuse_repeated(node)
    above.add(id(node))
    parts = [_measure(part, known, above) for part in _parts(node)]
    above.remove(id(node))
    size, depth = 1 + sum(part[0] for part in parts), 1 + max((part[1] for part in parts), default=0)
    if size > MOST_NODES or depth > DEEPEST:
        raise _Refused(
            f"its aliases stand for more than {MOST_NODES:,} keys and values or {DEEPEST} levels, "
            "write out what is meant"
        )
    known[id(node)] = size, depth
    return size, depth


def _parts(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair


def _refuse_repeated(node: yaml.Node) -> None:
    """A key that a mapping has twice, of which YAML would take the last."""
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _Refused(f"a key that is a list or a section (line {key.start_mark.line + 1}), keys are words")
        if key.value in seen:
            raise _Refused(f"{key.value} (line {key.start_mark.line + 1}) stands twice, keep one of them")
        seen.add(key.value)


def read_text(path: Path) -> str:
    """The text of a file, of which no more is read than a config can be.

    Raises:
        UserError: no such file, a folder, a device or a pipe, a file that is too long or no text.
    """
    try:
        kind = path.stat().st_mode
        if not stat.S_ISREG(kind):
            what = "a folder" if stat.S_ISDIR(kind) else "a device or a pipe"
            raise UserError(f"config {path}: it is {what}; give a YAML file, those shipped are in configs/")
        with open(path, "rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise UserError(f"config {path}: {TOO_LONG}")
        return content.decode("utf-8")
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError of links that loop
        reason = getattr(error, "strerror", None) or "not a text file"
        raise UserError(f"config {path}: {reason}; give a YAML file, those shipped are in configs/") from None
