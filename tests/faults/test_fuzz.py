"""A few examples of each target of fuzz.py, the same each time; FUZZ=1000 for as many as you like."""

from __future__ import annotations

import os

import pytest

from tests.faults import mutations
from tests.faults.fuzz import Target, feed, targets
from tests.faults.mutations import changed, paths, same

TRIALS = int(os.environ.get("FUZZ", "12"))
SLOW = ("predictions.npz, arrays", "predictions.npz, words")


@pytest.fixture(scope="module")
def all_targets(tmp_path_factory):
    return {target.name: target for target in targets(tmp_path_factory.mktemp("fuzz"))}


def test_only_a_refusal_or_the_right_result_comes_out_of_any_target(all_targets):
    seen = []
    for target in all_targets.values():
        found = feed(target, TRIALS if target.name not in SLOW else min(TRIALS, 20))
        assert found.failure is None, (target.name, found.failure)
        seen.append(found.counts)
    assert len(seen) >= 30 and sum(counts["refused"] + counts["made anew"] for counts in seen) > 4 * len(seen)
    assert sum(counts["right"] > 0 for counts in seen) > len(seen) // 3  # some examples are still right ones


def test_a_wrong_result_and_an_unclean_refusal_are_told():
    def wrong(example):
        assert example < 3
        return "right"

    def unclean(example):
        raise KeyError(example)

    numbers = mutations.st.integers(0, 9)
    assert isinstance(feed(Target("wrong", numbers, wrong), 50).failure, AssertionError)
    assert isinstance(feed(Target("unclean", numbers, unclean), 50).failure, KeyError)


def test_changes_and_comparisons():
    assert changed(b"abcd", [("flip", 0.5, b"\x00")]) == b"abbd"
    assert changed(b"abcd", [("cut", 0.5, b"x")]) == b"ab" and changed(b"abcd", [("empty", 0, b"x")]) == b""
    assert changed(b"abcd", [("insert", 0.25, b"xy"), ("remove", 0, b"z")]) == b"xybcd"
    assert list(paths({"a": [1, 2]})) == [(), ("a",), ("a", 0), ("a", 1)]
    assert same({"a": [1, float("nan")]}, {"a": (1.0, float("nan"))})
    assert not same(True, 1) and not same({"a": 1}, {"b": 1}) and not same([1], [1, 2])
