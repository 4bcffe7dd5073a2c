from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from settings.stages import Part
from settings.study import Study
from study.measurements import Measurement
from study.selection import KL as BY_KL
from study.selection import TOP1, select_tries
from study.units import Unit
from tests.study.small_study import make_measures

FAMILY = {"rate": ["slow", "middle", "fast"]}
KL = {"slow": [0.30, 0.50], "middle": [0.35, 0.35], "fast": [0.60, 0.10]}  # means 0.40, 0.35, 0.35
UNBIASED = {"slow": [0.5, 0.7], "middle": [0.5, 0.6], "fast": [0.55, 0.57]}  # means 0.60, 0.55, 0.56


def make_record(method: str, seed: int, following: float = 0.3, **numbers: float) -> Measurement:
    own = make_measures(following, 1 - following)
    return Measurement({"losses.kl.temperature": 1}, seed, method, own, None, numbers)


def make_groups(*left_out: tuple[str, int]):
    """By point and method, then seed; those of `left_out` have no held-out numbers."""
    found: dict[tuple[str, str], dict[Unit, Measurement]] = {}
    for method, kl in KL.items():
        for seed in range(2):
            numbers = {"held_out_kl": kl[seed], "held_out_unbiased": UNBIASED[method][seed]}
            following = {"slow": 0.2, "middle": 0.4, "fast": 0.6}[method] + seed / 10
            one = make_record(method, seed, following, **({} if (method, seed) in left_out else numbers))
            found.setdefault((json.dumps({"losses.kl.temperature": 1}), method), {})[one.unit] = one
    return found


def test_either_criterion_picks_by_its_mean_over_seeds() -> None:
    (row,) = select_tries(make_groups(), FAMILY, BY_KL)
    assert (row.family, row.label, row.tries, row.notes) == ("rate", "temperature 1", FAMILY["rate"], {})
    assert (row.blind.method, row.blind.value) == ("middle", pytest.approx(0.35))  # of two alike the first
    assert (row.oracle.method, row.oracle.value) == ("slow", pytest.approx(0.6))
    assert row.blind.tested["following"].mean == pytest.approx(0.45)
    assert row.oracle.tested["unbiased"].mean == pytest.approx(0.75) and row.oracle.tested["top1"] is None


# Tries by name: the part that the last stage trains, and held-out top-1 by seed.
Tries = dict[str, tuple[Part, list[float]]]


@pytest.mark.parametrize(
    ("tries", "images", "best", "pick"),
    [  # two seeds 0.06 apart: a standard error of 0.03
        ({"a": ("all", [0.82, 0.88]), "h": ("head", [0.81, 0.85])}, None, "a", "h"),
        ({"a": ("all", [0.82, 0.88]), "h": ("head", [0.78, 0.85])}, None, "a", "a"),
        (
            {"a": ("all", [0.82, 0.88]), "l": ("last_block", [0.83, 0.83]), "h": ("head", [0.84, 0.84])},
            None,
            "a",
            "h",
        ),
        (
            {"a": ("all", [0.82, 0.88]), "l": ("last_block", [0.83, 0.83]), "h": ("head", [0.7, 0.7])},
            None,
            "a",
            "l",
        ),
        ({"x": ("head", [0.83, 0.85]), "y": ("head", [0.82, 0.88])}, None, "y", "x"),
        ({"h": ("head", [0.83, 0.83]), "a": ("all", [0.84, 0.84])}, None, "a", "a"),  # no spread, no margin
        ({"a": ("all", [0.90]), "h": ("head", [0.88])}, 100, "a", "h"),  # sqrt(0.9 * 0.1 / 100) = 0.03
        ({"a": ("all", [0.90]), "h": ("head", [0.88])}, 10_000, "a", "a"),
        ({"a": ("all", [0.90]), "h": ("head", [0.88])}, None, "a", "a"),  # recorded before their number was
    ],
)
def test_blind_pick_trains_least_within_one_error(tries: Tries, images: int | None, best: str, pick: str) -> None:
    groups: dict[tuple[str, str], dict[Unit, Measurement]] = {}
    for method, (trained, values) in tries.items():
        for seed, top1 in enumerate(values):
            numbers = {"held_out_top1": top1, "held_out_unbiased": top1, "held_out_kl": top1}
            one = replace(make_record(method, seed, **numbers), trained=trained, held_out_images=images)
            groups.setdefault(("{}", method), {})[one.unit] = one
    (row,) = select_tries(groups, {"f": list(tries)})
    assert (row.criterion, row.blind.best, row.blind.method) == (TOP1, best, pick)
    assert row.blind.value == pytest.approx(np.mean(tries[pick][1])) and row.oracle.method == best
    assert Study().choose_by == TOP1


def test_only_seeds_that_all_tries_have_count() -> None:
    (row,) = select_tries(make_groups(("middle", 0)), FAMILY, BY_KL)  # seed 1 alone: 0.50, 0.35, 0.10
    assert (row.blind.method, row.blind.value) == ("fast", 0.10) and row.oracle.method == "slow"
    (row,) = select_tries(make_groups(("middle", 0), ("slow", 1)), FAMILY, BY_KL)
    assert row.blind.method is None and row.oracle.value is None


def test_test_images_change_no_pick() -> None:
    rng, given = np.random.default_rng(0), make_groups()
    before = select_tries(given, FAMILY, BY_KL)[0]
    for group in given.values():
        for unit, one in group.items():
            group[unit] = make_record(one.method, unit.seed, float(rng.random()), **one.numbers)
    after = select_tries(given, FAMILY, BY_KL)[0]
    assert (after.blind.method, after.oracle.method) == (before.blind.method, before.oracle.method)
    assert after.blind.tested != before.blind.tested


def test_tries_that_were_not_recorded_are_named() -> None:
    (row,) = select_tries(make_groups(), {"rate": ["fast", "none"]})
    assert row.tries == ["fast"] and row.notes == {"tries": "Not recorded: none."}
    (row,) = select_tries(make_groups(), {"rate": ["none"]})
    assert row.blind.method is None and select_tries(make_groups(), {}) == []
