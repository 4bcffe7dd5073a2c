from __future__ import annotations

import pytest

from training.run.history import checked_best, checked_history


def test_numbers_by_epoch_are_taken():
    lines = [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 1e-9}]
    assert checked_history(lines) == lines and checked_history([]) == []
    assert checked_best(None) is None
    assert checked_best({"val_top1": 0.5, "model": {}}) == {"val_top1": 0.5, "model": {}}


@pytest.mark.parametrize(
    "lines",
    [{}, None, "a", [1], [[]], [{"epoch": "b"}], [{"epoch": 1, 2: 3}], [{"epoch": True}], [{"a": 1}], [{}]],
)
def test_anything_else_is_not(lines):
    with pytest.raises(ValueError, match="no numbers by epoch"):
        checked_history(lines)


@pytest.mark.parametrize("best", [[], {}, 0, {"val_top1": 1.0}, {"val_top1": None, "model": {}}])
def test_a_best_epoch_has_weights(best):
    with pytest.raises(ValueError, match="no epoch with its weights"):
        checked_best(best)
