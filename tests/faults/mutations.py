"""What hypothesis makes of a right file: its bytes changed, or its values replaced by others of any type."""

from __future__ import annotations

import copy
import struct
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

Change = tuple[str, float, bytes]  # what, where as a share of the length, with which bytes

KINDS = ("flip", "set", "cut", "remove", "insert", "swap", "empty")
TEXT = st.text(max_size=8) | st.sampled_from(
    ["", "..", "/", "a\nb", "nan", "1e999", "\x1b[2J", "ß", "crd", "teacher", "0x1p3"]
)
NUMBERS = st.sampled_from(
    [0, 1, -1, 2, 3, 2**31, 2**63, 2**64, -(2**63), 10**30, 0.5, -0.5, 1e-300, 1e308, float("inf"), float("nan")]
)
WORDS = st.none() | st.booleans() | st.integers(-5, 300) | NUMBERS | st.floats() | TEXT
VALUES = st.recursive(
    WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
CHANGES = st.lists(
    st.tuples(st.sampled_from(KINDS), st.floats(0, 1, allow_nan=False), st.binary(min_size=1, max_size=6)),
    min_size=1,
    max_size=3,
)


def changed(content: bytes, changes: list[Change]) -> bytes:
    """Bytes after some changes, each at a place of its own."""
    for kind, where, by in changes:
        start = min(int(where * len(content)), max(len(content) - 1, 0))
        end = start + len(by)
        if kind == "flip" and content:
            content = content[:start] + bytes([content[start] ^ (1 << by[0] % 8)]) + content[start + 1 :]
        elif kind == "set":
            content = content[:start] + by + content[end:]
        elif kind == "cut":
            content = content[:start]
        elif kind == "remove":
            content = content[:start] + content[end:]
        elif kind == "insert":
            content = content[:start] + by + content[start:]
        elif kind == "swap":
            content = content[start:] + content[:start]
        elif kind == "empty":
            content = b""
    return content


def paths(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of each part of nested dicts and lists, the whole itself first."""
    yield above
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in pairs:
        yield from paths(part, (*above, key))


@st.composite
def altered(draw: st.DrawFn, whole: Any, values: st.SearchStrategy[Any] = VALUES) -> Any:
    """A deep copy of nested dicts and lists with one to three parts replaced, removed, renamed or doubled."""
    found = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 3))):
        places = list(paths(found))[1:]
        if not places:
            return draw(values)
        *above, last = draw(st.sampled_from(places))
        section = found
        for key in above:
            section = section[key]
        how = draw(st.sampled_from(["replace", "replace", "replace", "remove", "rename", "double"]))
        if how == "replace":
            section[last] = draw(values)
        elif how == "remove":
            del section[last]
        elif how == "rename":
            _rename(section, last, draw(st.text(max_size=6)))
        elif isinstance(section, list):
            section.append(copy.deepcopy(section[last]))
    return found


def _rename(section: Any, key: Any, name: str) -> None:
    if isinstance(section, dict):
        section[name] = section.pop(key)
    else:
        section.insert(0, name)


def same(first: Any, second: Any) -> bool:
    """Whether nested values are the same, NaN and NaN too, 1 and 1.0 too, True and 1 not."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(same(value, second[key]) for key, value in first.items())
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, float) and isinstance(second, float):
        return struct.pack("d", first) == struct.pack("d", second) or first == second
    return isinstance(first, bool) == isinstance(second, bool) and bool(first == second)
