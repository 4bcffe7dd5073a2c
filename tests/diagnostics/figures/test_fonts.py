from __future__ import annotations

import warnings

import numpy as np
import pytest

from diagnostics.figures import fonts
from diagnostics.figures.features import draw_maps
from diagnostics.figures.fonts import is_drawable, label_classes, list_families
from diagnostics.figures.style import to_bytes

SCRIPTS = ["猫", "고양이", "ねこ", "قط", "חתול", "बिल्ली", "แมว", "🐈", "naïve", "кот", "γάτα", "$x_1$"]


@pytest.fixture
def bare(monkeypatch):
    """A machine that has no font but matplotlib's own."""
    monkeypatch.setattr(fonts, "OTHERS", ())
    list_families.cache_clear()
    yield
    list_families.cache_clear()


def test_a_name_that_no_font_has_is_a_number(bare) -> None:
    drawn = label_classes(SCRIPTS)
    assert drawn[8:] == ["naïve", "кот", "γάτα", r"\$x_1\$"]
    assert drawn[:8] == [f"class {number}" for number in range(8)]


def test_letters_that_would_be_set_apart_or_backwards_are_not_drawn() -> None:
    assert not any(map(is_drawable, ["قط", "חתול", "e\u0323\u0331"]))
    assert is_drawable("e\u0301")  # one letter when composed


@pytest.mark.parametrize("kind", ["png", "pdf"])
def test_no_figure_warns_of_a_missing_glyph(bare, kind) -> None:
    count = len(SCRIPTS)
    figure = draw_maps({"teacher": np.zeros((count, 2))}, np.arange(count), SCRIPTS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert to_bytes(figure, kind)
