from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from diagnostics.calibration import Calibration, ReliabilityBin
from diagnostics.evaluation.results import ModelAccuracy
from diagnostics.figures.predictions import (
    draw_accuracy,
    draw_corruptions,
    draw_reliability,
)


def list_texts(figure: Figure) -> list[str]:
    """All that is written in the panels of a figure."""
    found = []
    for axes in figure.axes:
        found += [axes.get_xlabel(), axes.get_ylabel(), axes.get_title(loc="left")]
        found += [text.get_text() for text in (*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels())]
    return found


STUDENTS = {"kd": 0.4, "crd": 0.42}


def model(name: str, top1: float) -> ModelAccuracy:
    return ModelAccuracy(name, name.split("/")[0], 0, "resnet8", "", top1, top1 - 0.1, top1 + 0.05)


def test_accuracy_keeps_the_seeds_of_a_method_together() -> None:
    figure = draw_accuracy([model("kd", 0.5), model("crd", 0.6), model("kd/1", 0.7)])
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["kd", "kd/1", "crd"]
    assert draw_accuracy([]) is None


def test_a_teacher_far_ahead_stands_at_the_edge_of_the_students_axis() -> None:
    near = [
        ModelAccuracy(name, name, 0, "", "", top1, top1 - 0.01, top1 + 0.01) for name, top1 in STUDENTS.items()
    ]
    teacher = ModelAccuracy("teacher", "teacher", None, "", "", 0.7, 0.69, 0.71)
    (axes,) = draw_accuracy([teacher, *near]).axes
    assert axes.get_xlim()[1] < 50 and "70.0 →" in {text.get_text() for text in axes.texts}
    (beside,) = draw_accuracy([ModelAccuracy("teacher", "teacher", None, "", "", 0.45, 0.44, 0.46), *near]).axes
    assert beside.get_xlim()[1] > 45 and "45.0" in {text.get_text() for text in beside.texts}


def test_reliability_joins_bins_of_enough_images_and_leaves_the_others_hollow() -> None:
    bins = [
        ReliabilityBin(0.0, 0.25, 0, None, None),
        ReliabilityBin(0.25, 0.5, 4, 0.4, 0.5),
        ReliabilityBin(0.5, 0.75, 40, 0.7, 0.6),
        ReliabilityBin(0.75, 1.0, 56, 0.9, 0.75),
    ]
    figure = draw_reliability({"kd": Calibration(100, 0.25, 0.1, 0.5, 0.7, bins, None, {})})
    marks = figure.axes[0].collections
    assert [mark.get_offsets().tolist() for mark in marks] == [[[40, 50]], [[70, 60]], [[90, 75]]]
    assert [mark.get_facecolor()[0].tolist()[:3] == [1, 1, 1] for mark in marks] == [True, False, False]
    *whiskers, joined = figure.axes[0].lines[1:]
    assert joined.get_xydata().tolist() == [[70, 60], [90, 75]]
    low, high = whiskers[0].get_ydata()
    assert [low, high] == pytest.approx([15.0, 85.0], abs=0.1)  # Wilson's of 2 among 4
    assert "kd, ECE 25.0 %" in list_texts(figure)


def test_corruptions_share_an_axis_that_holds_every_error() -> None:
    rates = {"noise": [0.1, 0.2, 0.3, 0.4, 0.5], "jpeg": [0.9] * 5}
    figure = draw_corruptions({"kd": rates, "kd/1": rates})
    assert len(figure.axes) == 2 and len(figure.axes[0].lines) == 1
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim() == (0, pytest.approx(93))
    assert draw_corruptions({}) is None
