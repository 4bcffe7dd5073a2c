"""Of training/alignment.py."""

from __future__ import annotations

import pytest

from training.alignment import average_cosine


def test_early_stopping_goes_by_cka_where_no_loss_has_a_cosine():
    assert average_cosine({"cosine_a": 0.2, "cosine_b": 0.4, "cka_a": 0.9}) == pytest.approx(0.3)
    assert average_cosine({"cka_a": 0.5, "cka_b": 0.7, "epoch": 3}) == pytest.approx(0.6)
    assert average_cosine({"epoch": 3}) == 0.0
