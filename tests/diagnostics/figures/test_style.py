from __future__ import annotations

import io

import pytest
from PIL import Image

from diagnostics.evaluation.results import ModelAccuracy
from diagnostics.figures.predictions import draw_accuracy
from diagnostics.figures.style import METHODS, find_window, pick_colour, pick_marker, to_bytes, truncate_label


def model(name: str, top1: float) -> ModelAccuracy:
    return ModelAccuracy(name, name.split("/")[0], 0, "resnet8", "", top1, top1 - 0.1, top1 + 0.05)


def test_a_method_looks_the_same_whatever_its_seed_and_unlike_the_others() -> None:
    assert pick_colour("kd/3") == pick_colour("kd") and pick_marker("kd/3") == pick_marker("kd")
    looks = [look for name, look in METHODS.items() if name != "student"]  # two_stage and student never meet
    assert len({shade for shade, _ in looks}) == len({shape for _, shape in looks}) == len(looks)


def test_a_method_of_ones_own_looks_as_its_name_decides() -> None:
    names = ["mine", "mine/1", "mine stage 1"]
    assert {(pick_colour(name), pick_marker(name)) for name in names} == {
        ("#E73F74", "*")
    }  # in every run and process
    assert not {pick_colour(f"method{number}") for number in range(50)} & {shade for shade, _ in METHODS.values()}
    looks = {(pick_colour(f"method{number}"), pick_marker(f"method{number}")) for number in range(10)}
    assert len(looks) == 10


def test_an_axis_is_the_students_where_a_teacher_would_squeeze_them() -> None:
    students = [[40], [41, 42]]
    assert find_window(students, [70]) == pytest.approx((39.76, 42.24)) == find_window(students, [10])
    assert find_window(students, [43.9]) is None is find_window(students, [38.1])
    assert find_window([[40, 42]], [70]) is None is find_window([], [1]) is find_window(students, [])


def test_labels_are_short_and_never_a_formula() -> None:
    assert truncate_label("$x$") == r"\$x\$"
    assert len(truncate_label("a" * 40)) == 18
    figure = draw_accuracy([model("$a_b$", 0.5)])
    assert to_bytes(figure, "png")


def test_files_are_the_same_each_time() -> None:
    first, second = (draw_accuracy([model("kd", 0.5)]) for _ in range(2))
    assert to_bytes(first, "png") == to_bytes(second, "png")
    assert to_bytes(first, "pdf") == to_bytes(second, "pdf")
    assert Image.open(io.BytesIO(to_bytes(first, "png"))).width == round(4.6 * 150)


def test_pdf_files_hold_truetype_fonts() -> None:
    content = to_bytes(draw_accuracy([model("kd", 0.5)]), "pdf")
    assert b"/CIDFontType2" in content and b"/Type3" not in content
