from __future__ import annotations

import pytest

from diagnostics.best_epoch import compare_best_epochs
from training.evaluation import find_best_test_epoch

CURVES = {
    "kd": [{"epoch": 1, "test_top1": 0.5}, {"epoch": 2, "test_top1": 0.75}, {"epoch": 3, "test_top1": 0.75}],
    "two_stage": [{"epoch": 1, "test_top1": 0.25}, {"epoch": 2, "test_top1": 0.5}],
    "given": [],
    "stage1": [{"epoch": 1, "loss": 2.0}],
}


def test_the_first_of_equal_epochs_is_best() -> None:
    assert find_best_test_epoch(CURVES["kd"]) == {"best_test_top1": 0.75, "best_test_epoch": 2}
    assert find_best_test_epoch(CURVES["stage1"]) == {} == find_best_test_epoch([])


def test_models_without_epochs_are_left_out() -> None:
    found = compare_best_epochs({"given": 0.9, "kd": 0.625, "two_stage": 0.5}, CURVES)
    assert found is not None
    assert [(row.model, row.difference, row.epoch, row.epochs) for row in found.models] == [
        ("kd", 0.125, 2, 3),
        ("two_stage", 0.0, 2, 2),
    ]
    assert found.mean_difference == pytest.approx(0.0625)
    assert "6.25 points above the final top-1, mean of 2 models" in found.sentence
    assert compare_best_epochs({"given": 0.9}, CURVES) is None
