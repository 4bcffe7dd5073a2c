from __future__ import annotations

import statistics

import pytest

from diagnostics.stability import NO_CURVE, TOO_SHORT, measure_stability


def make_history(*values):
    return [{"epoch": number, "test_top1": value} for number, value in enumerate(values, start=1)]


def test_changes_in_the_last_half_count() -> None:
    values = [0.0, 0.9, 0.1, 0.50, 0.60, 0.55, 0.65]  # seven epochs: the last four
    found = measure_stability(make_history(*values))
    changes = [0.60 - 0.50, 0.55 - 0.60, 0.65 - 0.55]
    assert found.epochs == 4 and found.mean_change == pytest.approx(0.05)
    assert found.sd == pytest.approx(statistics.stdev(changes)) and found.largest_fall == pytest.approx(0.05)


def test_a_steady_climb_is_steady() -> None:
    found = measure_stability(make_history(*(number / 20 for number in range(20))))
    assert found.sd == pytest.approx(0, abs=1e-12) and found.largest_fall == 0 and found.mean_change > 0


def test_short_or_missing_curves_give_notes() -> None:
    assert measure_stability(make_history(0.1, 0.2, 0.3, 0.4)).notes["sd"] == TOO_SHORT
    assert measure_stability([{"epoch": 1, "loss": 1.0}]).notes["sd"] == NO_CURVE
