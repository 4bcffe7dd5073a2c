from __future__ import annotations

import pytest

from study.checks import check_worst, compute_final_fall


@pytest.mark.parametrize(
    ("history", "fall"),
    [
        ([9.0, 1.0, 1.0], 0),
        ([1.0, 0.9], 0.1),
        ([9.0] * 4 + [5.0, 3.0, 2.0, 1.0], 1 - 1.5 / 4),
        ([2.0, 2.2, 2.2, 2.0] * 3, 1 - 6.4 / 6.2),  # views that differ by 10 % are no fall
        ([0.0, 0.0], 0),
        ([1.0], None),
        ([], None),
    ],
)
def test_final_fall(history, fall) -> None:
    assert compute_final_fall(history) == (None if fall is None else pytest.approx(fall, abs=1e-12))


def test_the_worst_decides_and_failing_places_are_named() -> None:
    check = check_worst("teacher_biased", [("a", 0.5), ("b", 0.1), ("c", None)])
    assert (check.passed, check.value, check.failed) == (False, 0.1, ["b"])
    assert "1 of 2 fail, at worst 10.0 points (b)" in check.sentence
    assert check_worst("teacher_unbiased", [("a", 0.03), ("b", 0.05)]).passed is True
    assert check_worst("teacher_biased", [("a", None)]).passed is None
