from __future__ import annotations

import threading

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from errors import MachineError
from tests.faults.test_disk import full_beyond
from training.run.events import events_in


def test_numbers_are_there_to_be_read(tmp_path):
    before = threading.excepthook
    with events_in(tmp_path, 1) as events:
        for epoch in (1, 2):
            events.add({"loss": 1 / epoch, "top1": 0.5}, epoch)
    found = EventAccumulator(str(tmp_path)).Reload()
    assert [(one.step, one.value) for one in found.Scalars("loss")] == [(1, 1.0), (2, 0.5)]
    assert threading.excepthook is before


def test_a_full_disk_is_one_error_and_no_traceback_of_a_thread(tmp_path, capsys):
    with (
        full_beyond(10),
        pytest.raises(MachineError, match=r"events\.out\.tfevents cannot be written .*file too large"),
        events_in(tmp_path, 1) as events,
    ):
        for epoch in range(200):
            events.add({"loss": 1.0}, epoch)
    assert capsys.readouterr().err == ""
