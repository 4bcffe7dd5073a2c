"""Files that would write one where they are loaded without care: refused, and none appears."""

from __future__ import annotations

import pytest

from tests.faults.crafted import Places, controls


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # files left open
def test_what_is_crafted_works_without_care_and_not_here(tmp_path):
    assert len(controls(tmp_path / "owned")) == 8
    places = Places(tmp_path)
    some = [one for one in places.attempts() if "old format" not in one.what and one.what != "YAML, new"]
    assert len(some) >= 20 and not any(one.wrote for one in some)
    made_anew = [one.where for one in some if one.said.code == 0]
    assert set(made_anew) <= {
        "a run's predictions.npz",
        "the teacher's outputs, signed",
        "decoded images",
    }
    for one in some:
        assert one.said.code in (0, 2) and one.said.err.count("\n") == 1, one
