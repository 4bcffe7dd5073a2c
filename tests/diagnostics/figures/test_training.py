from __future__ import annotations

import pytest

from diagnostics.figures.training import draw_epochs

HISTORIES = {
    "teacher": [{"epoch": 1, "test_top1": 0.9, "learning_rate": 0.1, "ce": 0.7}],
    "stage1": [{"epoch": e, "cosine_last": 0.1 * e, "learning_rate": 0.2 / e} for e in (1, 2)],
    "two_stage": [{"epoch": 1, "test_top1": 0.5, "learning_rate": 0.01, "loss": 3.0, "mine_last": 0.2}],
    "kd": [{"epoch": 1, "test_top1": 0.4}, {"epoch": 2}],
    "own stage 1": [{"epoch": 1, "mine_last": 0.9}],
    "own": [{"epoch": 1, "test_top1": 0.6, "ce": 0.3}],
    "head/1": [{"epoch": 1, "test_top1": 0.3, "ce": 0.2}],
}


def points(axes) -> list[list[list[float]]]:
    return [line.get_xydata().tolist() for line in axes.lines]


def test_a_stage_begins_where_the_one_before_ended() -> None:
    left, right, *terms = draw_epochs(HISTORIES, {"two_stage": 2, "head": 2, "own stage 1": 0, "own": 1}).axes
    assert points(left) == [[[3.0, 50.0]], [[1.0, 40.0]], [[2.0, 60.0]], [[3.0, 30.0]]]
    assert points(right) == [[[1, 0.1]], [[1, 0.2], [2, 0.1]], [[3, 0.01]]]
    assert right.get_yscale() == "log"
    assert {axes.get_ylabel(): points(axes) for axes in terms} == {
        "cosine_last": [[[1, 0.1], [2, 0.2]]],
        "ce": [[[1, 0.7]], [[2, 0.3]]],  # of the first seed
        "loss": [[[3, 3.0]]],
        "mine_last": [[[3, 0.2]], [[1, 0.9]]],
    }
    assert terms[-1].lines[1].get_color() == left.lines[2].get_color()  # a stage looks like its method
    assert draw_epochs({"kd": []}, {}) is None


def test_every_measure_has_a_panel_by_its_name() -> None:
    history = [
        {
            "epoch": e,
            "learning_rate": 0.1,
            "loss": 9 / e,
            "mine": 0.01 * e**4,
            "val_top1": 0.1 * e,
            "explained_stage2": -e,
        }
        for e in (1, 3)
    ]
    figure = draw_epochs({"kd": [{"epoch": 1, "test_top1": 0.4}], "own": history}, {})
    names = ["test top-1, %", "learning rate", "validation top-1, %", "loss", "mine", "explained_stage2"]
    assert [axes.get_ylabel() for axes in figure.axes] == names
    panels = dict(zip(names, figure.axes, strict=True))
    assert points(panels["validation top-1, %"]) == [[[1, 10.0], [3, pytest.approx(30.0)]]]
    assert panels["mine"].get_yscale() == "log" and panels["loss"].get_ylim()[0] == 0
