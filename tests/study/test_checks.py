from __future__ import annotations

import pytest

from study.checks import Value, check_worst, compute_final_fall, list_limitations, run_checks
from study.measurements import Measurement


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
    check = check_worst("teacher_biased", [Value("a", 0.5), Value("b", 0.1), Value("c", None)])
    assert (check.passed, check.value, check.failed) == (False, 0.1, ["b"])
    assert "1 of 2 fail, at worst 10.0 points (b)" in check.sentence
    assert check_worst("teacher_unbiased", [Value("a", 0.03), Value("b", 0.05)]).passed is True
    assert check_worst("teacher_biased", [Value("a", None)]).passed is None


def make_record(read: float, cues: int, kl: tuple[float, ...] = ()) -> Measurement:
    return Measurement({}, 0, "kd", None, None, {"cue_read": read}, kl, label=f"{cues} cues", cue_count=cues)


@pytest.mark.parametrize(
    ("cues", "read", "passed"),
    [(2, 0.89, False), (10, 0.89, False), (10, 0.9, True), (20, 0.44, False), (100, 0.55, True), (0, 0.55, False)],
)
def test_cue_readable_scales_with_chance(cues: int, read: float, passed: bool) -> None:
    assert {check.name: check.passed for check in run_checks([make_record(read, cues)])}["cue_readable"] is passed


def test_each_number_of_cues_has_its_own_limit() -> None:
    checks = run_checks([make_record(0.5, 100), make_record(0.8, 10)])
    check = next(check for check in checks if check.name == "cue_readable")
    assert (check.failed, check.value, check.limit) == (["10 cues, seed 0"], 0.8, 0.9)


def test_falling_kl_is_a_limitation_not_a_check() -> None:
    falling, settled = make_record(0.95, 10, (2.0, 1.0)), make_record(0.95, 10, (1.0, 0.97))
    assert all(check.passed is not False for check in run_checks([falling]))
    (sentence,) = list_limitations([falling, settled])
    assert "1 of 2 models" in sentence and "50.0 % (kd, 10 cues, seed 0)" in sentence
    assert list_limitations([settled]) == []
