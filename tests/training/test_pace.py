from __future__ import annotations

import pytest

from training.pace import Pace, show_duration


def test_time_left_combines_this_job_and_later_ones() -> None:
    pace = Pace(waiting=1000)
    assert pace.predict_left(50, 0.5) == 25  # nothing is known of later jobs
    pace.add(100, 10.0)
    pace.add(300, 10.0)  # 20 images a second over both
    assert pace.predict_left(50, 0.5) == pytest.approx(50 * 0.5 + 1000 / 20)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(119, "119 s"), (120, "2 min"), (7199, "120 min"), (7200, "2.0 h"), (90000, "25.0 h"), (864000, "10.0 days")],
)
def test_durations_have_a_readable_unit(seconds: float, shown: str) -> None:
    assert show_duration(seconds) == shown
