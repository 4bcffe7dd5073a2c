from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from diagnostics.calibration import Calibration, ReliabilityBin
from diagnostics.comparison import DetectableDifference, DifferenceInterval
from diagnostics.cost import Cost, Latency
from diagnostics.fidelity import Fidelity
from diagnostics.figures.predictions import (
    accuracy,
    chosen_classes,
    class_change,
    contingency,
    corruptions,
    cost,
    reliability,
    short,
)
from diagnostics.results import Faithfulness, ModelAccuracy, Pair, RelativeCost
from diagnostics.statistics import Counts, paired_statistics


def texts(figure: Figure) -> list[str]:
    """All that is written in the panels of a figure."""
    found = []
    for axes in figure.axes:
        found += [axes.get_xlabel(), axes.get_ylabel(), axes.get_title(loc="left")]
        found += [text.get_text() for text in (*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels())]
    return found


def model(name: str, top1: float) -> ModelAccuracy:
    return ModelAccuracy(name, name.split("/")[0], 0, "resnet8", "", top1, top1 - 0.1, top1 + 0.05)


def pair(a: str, b: str) -> Pair:
    statistics = paired_statistics(Counts(5, 3, 1, 1))
    interval, detectable = DifferenceInterval(0.0, None, None, {}), DetectableDifference(None, {})
    return Pair(a, b, statistics, None, None, interval, detectable, "")


def faithful(change: list[float | None]) -> Faithfulness:
    return Faithfulness(Fidelity(10, 0.5, 0.1, 3, None, change, {}), [])


def test_accuracy_keeps_the_seeds_of_a_method_together():
    figure = accuracy([model("kd", 0.5), model("crd", 0.6), model("kd/1", 0.7)])
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["kd", "kd/1", "crd"]
    assert accuracy([]) is None


def test_contingency_shows_the_first_seed_against_the_teacher():
    figure = contingency([pair("teacher", "kd"), pair("teacher", "kd/1"), pair("kd", "crd")])
    assert len(figure.axes) == 1
    assert [text.get_text() for text in figure.axes[0].texts] == [
        "5\n50.0 %",
        "3\n30.0 %",
        "1\n10.0 %",
        "1\n10.0 %",
    ]
    assert contingency([pair("kd", "crd")]) is None


def test_of_many_classes_the_most_changed_are_shown():
    change = [None, *np.linspace(0.5, -0.5, 99).tolist()]
    assert chosen_classes(change) == [*range(1, 16), *range(85, 100)]
    assert chosen_classes([0.1, None, 0.3]) == [2, 0]
    section = {name: faithful(change) for name in ("kd", "two_stage")}
    figure = class_change(section, [f"class {number}" for number in range(100)])
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert len(names) == 30 and names[0] == "class 1" and names[-1] == "class 99"
    assert class_change({}, []) is None


def test_reliability_leaves_out_empty_bins():
    bins = [ReliabilityBin(0.0, 0.5, 0, None, None), ReliabilityBin(0.5, 1.0, 4, 0.75, 0.5)]
    figure = reliability({"kd": Calibration(4, 0.25, 0.1, 0.5, 0.7, bins, None, {})})
    points = figure.axes[0].collections[0].get_offsets()
    assert points.tolist() == [[75.0, 50.0]]
    assert "kd, ECE 25.0 %" in texts(figure)


def test_corruptions_share_an_axis_that_holds_every_error():
    rates = {"noise": [0.1, 0.2, 0.3, 0.4, 0.5], "jpeg": [0.9] * 5}
    figure = corruptions({"kd": rates, "kd/1": rates})
    assert len(figure.axes) == 2 and len(figure.axes[0].lines) == 1
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim() == (0, pytest.approx(93))
    assert corruptions({}) is None


def test_cost_turns_logarithmic_for_a_large_teacher():
    def costs(parameters: int) -> RelativeCost:
        return RelativeCost(Cost(parameters, 1, 1, [Latency(1, 5, 1.0, 0.1, 1000.0)], "cpu", 1), None)

    models = [model("teacher", 0.7), model("kd", 0.6)]
    near, far = (cost({"teacher": costs(size), "kd": costs(100)}, models) for size in (300, 10000))
    assert [figure.axes[0].get_xscale() for figure in (near, far)] == ["linear", "log"]
    assert cost({}, models) is None
    assert [short(value) for value in (0.25, 78042, 1.2e6, 3e9)] == ["0.25", "78k", "1.2M", "3G"]
