from __future__ import annotations

from diagnostics.figures.training import accuracy_by_epoch, stage1, stage2


def test_two_stage_begins_where_stage_1_ended():
    histories = {
        "teacher": [{"epoch": 1, "test_top1": 0.9}],
        "stage1": [{"epoch": 1, "cosine_last": 0.1}, {"epoch": 2, "cosine_last": 0.2}],
        "two_stage": [{"epoch": 1, "test_top1": 0.5}],
        "kd": [{"epoch": 1, "test_top1": 0.4}, {"epoch": 2}],
    }
    lines = accuracy_by_epoch(histories).axes[0].lines
    assert [line.get_xydata().tolist() for line in lines] == [[[3.0, 50.0]], [[1.0, 40.0]]]
    assert stage1(histories["stage1"]).axes[0].lines[0].get_ydata().tolist() == [0.1, 0.2]
    assert stage2(histories["two_stage"]) is not None
    assert stage1([]) is stage2([]) is accuracy_by_epoch({"kd": []}) is None
