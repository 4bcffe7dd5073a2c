from __future__ import annotations

from diagnostics.figures.training import by_epoch, stage1, stage2


def test_a_student_of_two_stages_begins_where_stage_1_ended():
    histories = {
        "teacher": [{"epoch": 1, "test_top1": 0.9, "learning_rate": 0.1}],
        "stage1": [{"epoch": e, "cosine_last": 0.1 * e, "learning_rate": 0.2 / e} for e in (1, 2)],
        "two_stage": [{"epoch": 1, "test_top1": 0.5, "learning_rate": 0.01}],
        "kd": [{"epoch": 1, "test_top1": 0.4}, {"epoch": 2}],
        "head/1": [{"epoch": 1, "test_top1": 0.3}],
    }
    left, right = by_epoch(histories, {"two_stage": 2, "head": 2}).axes
    lines = left.lines
    assert [line.get_xydata().tolist() for line in lines] == [[[3.0, 50.0]], [[1.0, 40.0]], [[3.0, 30.0]]]
    assert [line.get_xydata().tolist() for line in right.lines] == [[[1, 0.1]], [[1, 0.2], [2, 0.1]], [[3, 0.01]]]
    assert right.get_yscale() == "log"
    assert stage1(histories["stage1"]).axes[0].lines[0].get_ydata().tolist() == [0.1, 0.2]
    assert stage2(histories["two_stage"]) is not None
    assert stage1([]) is stage2([]) is by_epoch({"kd": []}, {}) is None
