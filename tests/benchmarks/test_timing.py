"""Of benchmarks/timing.py, and benchmarks/run_all.py."""

from __future__ import annotations

import json
import subprocess

import pytest
import torch

from benchmarks import run_all
from benchmarks.timing import Claim, Timing, arithmetic, in_own_process, measure_in_turn, table


def test_calls_take_turns_and_the_first_of_each_is_not_timed():
    order = []
    first, second = measure_in_turn(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3, [None, 2.0]
    )
    assert order == ["a", "b"] * 4
    assert (first.name, first.repeats, first.floor, second.floor) == ("a", 3, None, 2.0)
    assert first.seconds >= first.fastest > 0


@pytest.mark.parametrize(
    ("value", "at_most", "met"),
    [(1.4, True, True), (1.5, True, False), (40.0, False, False), (1.4, False, True), (None, False, None)],
)
def test_a_target_is_met_from_the_right_side(value, at_most, met):
    assert Claim("", value, target=1.4 if met is not False or at_most else 41, at_most=at_most).met is met


def test_arithmetic_of_a_product():
    assert arithmetic(lambda: torch.ones(3, 4) @ torch.ones(4, 5)) == 2 * 3 * 4 * 5


def test_the_table_says_what_was_missed_and_how_far_the_floor_is():
    timing = Timing("x", 0.25, 0.2, 3, 12.0, floor=0.1)
    lines = table([Claim("a", 2.0, "x slower", 1.4, at_most=True, timing=timing), Claim("bare")]).splitlines()
    assert lines[0].split()[:3] == ["what", "time", "memory"]
    assert " ".join(lines[1].split()) == "a 250.0 ms 12 MB 2 x slower <= 1.4 MISSED 100.0 ms 2.5"
    assert lines[2] == "bare"


def test_the_report_is_json_with_machine_and_threads():
    timing = Timing("x", 0.25, 0.2, 3, 12.0)
    written = json.loads(run_all.report([Claim("a", 2.0, "x", 1.4, timing=timing)], 3.0))
    assert written["environment"]["threads"] == torch.get_num_threads()
    assert written["claims"][0]["met"] is True and written["claims"][0]["timing"]["seconds"] == 0.25


def test_a_case_that_fails_says_what_it_wrote(monkeypatch):
    failed = subprocess.CompletedProcess([], 1, stdout="", stderr="no room")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(RuntimeError, match="no room"):
        in_own_process("crd_step", "float32")
