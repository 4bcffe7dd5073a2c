"""Names of classes in figures: in a font that has their letters, or as numbers where none of this machine has.

Pages show every name as it is: a browser has its own fonts.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache

from matplotlib.font_manager import fontManager, get_font

from diagnostics.figures.style import truncate_label

FIRST = "DejaVu Sans"  # comes with matplotlib
OTHERS = (  # of other scripts, in the order in which they are tried
    *(
        "Noto Sans CJK JP",
        "Noto Sans CJK SC",
        "Noto Sans CJK TC",
        "Noto Sans CJK KR",
        "Noto Sans JP",
        "Noto Sans SC",
    ),
    *("Noto Sans KR", "Source Han Sans", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback"),
    *("Hiragino Sans", "PingFang SC", "Apple SD Gothic Neo", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic"),
    *("Noto Sans", "Noto Sans Thai", "Arial Unicode MS", "Unifont"),
)
JOINED = {"R", "AL"}  # scripts written from the right, which matplotlib would set from the left and unjoined


@cache
def list_families() -> tuple[str, ...]:
    """Return the fonts of this machine that names are set in, the first that has a letter wins."""
    installed = {entry.name for entry in fontManager.ttflist}
    return (FIRST, *(name for name in OTHERS if name in installed))


@cache
def _list_letters(family: str) -> frozenset[int]:
    path = next(entry.fname for entry in fontManager.ttflist if entry.name == family)
    return frozenset(get_font(path).get_charmap())


def is_drawable(name: str) -> bool:
    """Return whether a figure can show a name as written: not with joined letters or combined marks."""
    composed = unicodedata.normalize("NFC", name)
    return all(
        any(ord(letter) in _list_letters(family) for family in list_families())
        and unicodedata.bidirectional(letter) not in JOINED
        and not unicodedata.category(letter).startswith("M")
        for letter in composed
    )


def label_classes(classes: Sequence[str]) -> list[str]:
    """Return what a figure calls each class: its name, or its number where that cannot be drawn."""
    return [
        truncate_label(unicodedata.normalize("NFC", name)) if is_drawable(name) else f"class {number}"
        for number, name in enumerate(classes)
    ]
