from __future__ import annotations

from diagnostics.figures.training import by_epoch, stage

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


def test_a_stage_begins_where_the_one_before_ended():
    left, right, *terms = by_epoch(HISTORIES, {"two_stage": 2, "head": 2, "own stage 1": 0, "own": 1}).axes
    assert points(left) == [[[3.0, 50.0]], [[1.0, 40.0]], [[2.0, 60.0]], [[3.0, 30.0]]]
    assert points(right) == [[[1, 0.1]], [[1, 0.2], [2, 0.1]], [[3, 0.01]]]
    assert right.get_yscale() == "log"
    assert {axes.get_ylabel(): points(axes) for axes in terms} == {
        "ce": [[[1, 0.7]], [[2, 0.3]]],  # of the first seed
        "loss": [[[3, 3.0]]],
        "mine_last": [[[3, 0.2]], [[1, 0.9]]],
    }
    assert terms[2].lines[1].get_color() == left.lines[2].get_color()  # a stage looks like its method
    assert by_epoch({"kd": []}, {}) is None


def test_all_that_a_stage_measured_is_drawn_by_its_name():
    history = [
        {
            "epoch": e,
            "learning_rate": 0.1,
            "loss": 9 / e,
            "mine": 0.01,
            "val_top1": 0.1 * e,
            "explained_stage2": -e,
        }
        for e in (1, 2)
    ]
    accuracy, losses, explained = stage(history, "epoch of stage 1").axes
    assert points(accuracy) == [[[1, 10.0], [2, 20.0]]]
    assert [line.get_label() for line in losses.lines] == ["loss", "mine"] and losses.get_yscale() == "log"
    assert [line.get_label() for line in explained.lines] == ["explained_stage2"]
    assert stage(HISTORIES["stage1"], "").axes[0].lines[0].get_ydata().tolist() == [0.1, 0.2]
    assert stage([], "") is None
