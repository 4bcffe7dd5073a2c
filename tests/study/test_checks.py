from __future__ import annotations

import pytest

from study.checks import biased_teachers, final_fall, unbiased_teachers


def test_final_fall():
    assert final_fall([9.0, 1.0, 1.0]) == pytest.approx(0, abs=1e-12)
    assert final_fall([1.0, 0.9]) == pytest.approx(0.1)
    assert final_fall([9.0] * 4 + [5.0, 3.0, 2.0, 1.0]) == pytest.approx(1 - 1.5 / 4)
    assert abs(final_fall([2.0, 2.2, 2.2, 2.0] * 3)) < 0.05  # views that differ by 10 % are no fall
    assert final_fall([0.0, 0.0]) == 0 and final_fall([1.0]) is None and final_fall([]) is None


def test_the_worst_decides_and_the_places_that_fail_are_named():
    check = biased_teachers([("a", 0.5), ("b", 0.1), ("c", None)])
    assert (check.passed, check.value, check.failed) == (False, 0.1, ["b"])
    assert "1 of 2 fail, at worst 10.0 points (b)" in check.sentence
    assert unbiased_teachers([("a", -0.03), ("b", 0.05)]).passed is True
    assert unbiased_teachers([("a", -0.08)]).value == pytest.approx(0.08)
    assert biased_teachers([("a", None)]).passed is None
