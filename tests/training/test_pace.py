from __future__ import annotations

import pytest

from training.pace import Pace, show_duration


def test_what_is_left_is_this_job_by_its_last_epoch_and_later_ones_by_all() -> None:
    pace = Pace(waiting=1000)
    assert pace.predict_left(50, 0.5) == 25  # of others nothing is known
    pace.add(100, 10.0)
    pace.add(300, 10.0)  # 20 images a second over both
    assert pace.predict_left(50, 0.5) == pytest.approx(50 * 0.5 + 1000 / 20)
    pace.waiting = 0
    assert pace.predict_left(0, 0.5) == 0


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7199, "120 min"),
        (7200, "2.0 h"),
        (90000, "25.0 h"),
        (864000, "10.0 days"),
    ],
)
def test_durations_are_shown_in_the_unit_that_a_person_takes(seconds: float, shown: str) -> None:
    assert show_duration(seconds) == shown
