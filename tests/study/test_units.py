"""Of study/units.py and study/groups.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from diagnostics.seeds import ONE_SEED
from settings.study import Hypothesis
from study.measurements import Measurement
from study.results import compute_results
from study.units import Unit, compare_units, describe_units, summarise_units

TEACHERS, SEEDS = 3, 2


def make_values(values: np.ndarray, own_seeds: bool = False) -> tuple[dict[Unit, float], dict[Unit, str]]:
    """Return values (T, S) by unit, and each unit's teacher; with `own_seeds` no teacher shares one."""
    units = {
        (t, s): Unit(t * values.shape[1] + s if own_seeds else s, f"seed {t}") for t, s in np.ndindex(values.shape)
    }
    return {unit: float(values[at]) for at, unit in units.items()}, {u: f"t{at[0]}" for at, u in units.items()}


@pytest.mark.parametrize(
    ("units", "words"),
    [
        ([("a", 0), ("a", 1)], "2 student seeds of one teacher"),
        ([("a", 0)], "1 student seed of one teacher"),
        ([("a", 0), ("a", 1), ("b", 0), ("b", 1)], "2 teachers, 2 seeds each"),
        ([("a", 0), ("b", 1), ("c", 2)], "3 teachers, 1 seed each"),
        ([("a", 0), ("a", 1), ("b", 2)], "2 teachers, 1 to 2 seeds each"),
        ([("a", 0), ("a", 1), ("b", 0)], "2 teachers, one student seed"),  # of the seed that both have
    ],
)
def test_units_are_named(units: list[tuple[str, int]], words: str) -> None:
    found = {Unit(seed, teacher): teacher for teacher, seed in units}
    assert describe_units(found, found) == words
    count = len({teacher for teacher, _ in units})
    assert describe_units(found, found, of_teachers=True) == ("one teacher" if count == 1 else f"{count} teachers")


def test_one_teacher_gives_the_interval_over_seeds() -> None:
    values = np.array([[0.70, 0.74, 0.71]])
    found = summarise_units(*make_values(values), is_share=False)
    assert (found.low, found.high) == pytest.approx(stats.t.interval(0.95, 2, values.mean(), stats.sem(values[0])))


def test_teachers_with_own_seeds_are_compared_by_their_means() -> None:
    first, second = np.random.default_rng(0).normal(0.7, 0.02, (2, TEACHERS, SEEDS))
    one, teachers = make_values(first, own_seeds=True)
    found = compare_units(one, make_values(second, own_seeds=True)[0], teachers)
    expected = stats.ttest_rel(second.mean(axis=1), first.mean(axis=1))
    assert found.result.p == pytest.approx(expected.pvalue) and found.by_seed is None
    assert (found.result.low, found.result.high) == pytest.approx(tuple(expected.confidence_interval()))


def test_shared_seeds_widen_the_interval_over_teachers() -> None:
    rng = np.random.default_rng(0)
    first = np.tile(rng.normal(0.7, 0.02, SEEDS), (TEACHERS, 1))  # a method that no teacher takes part in
    second = 0.8 + rng.normal(0, 0.001, (TEACHERS, SEEDS))
    one, teachers = make_values(first)
    found = compare_units(one, make_values(second)[0], teachers)
    by_teacher = stats.ttest_rel(second.mean(axis=1), first.mean(axis=1)).confidence_interval()
    assert found.result.low is not None and found.result.high is not None and found.by_seed is not None
    assert found.result.high - found.result.low > 5 * (by_teacher.high - by_teacher.low)
    by_seed = stats.ttest_rel(second.mean(axis=0), first.mean(axis=0)).confidence_interval()
    assert (found.by_seed.low, found.by_seed.high) == pytest.approx(tuple(by_seed))
    summary = summarise_units(one, teachers, is_share=False)  # rests on seeds alone
    assert (summary.low, summary.high) == pytest.approx(
        stats.t.interval(0.95, SEEDS - 1, first.mean(), stats.sem(first[0]))
    )


def test_teachers_with_own_seeds_cover() -> None:
    """95 % less three standard errors of 1,000 repeats: the mean of each teacher's seeds is one value."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(1_000):
        values = 0.5 + 0.02 * rng.normal(size=(TEACHERS, 1)) + 0.02 * rng.normal(size=(TEACHERS, SEEDS))
        found = summarise_units(*make_values(values, own_seeds=True), is_share=False)
        assert found.low is not None and found.high is not None
        hits += found.low <= 0.5 <= found.high
    assert 0.93 <= hits / 1_000 <= 0.97


def test_a_study_of_several_teachers_puts_them_first() -> None:
    rng = np.random.default_rng(0)
    records = [
        Measurement(
            {}, seed, method, None, None, {"top1": top1 + rng.normal(0, 0.01)}, label="all", teacher=f"seed {t}"
        )
        for method, top1 in {"teacher": 0.9, "kd": 0.8, "scratch": 0.7}.items()
        for t in range(TEACHERS)
        for seed in range(SEEDS)
    ]
    records = [replace(record, teacher_hash=record.teacher) for record in records]
    found = compute_results(records, {"H1": Hypothesis(first="kd", second="scratch", exceeds=0)})
    (row,) = found.hypotheses
    assert row.result.over == "3 teachers, 2 seeds each" and row.result.seeds == [0, 1]
    assert "over 3 teachers, 2 seeds each, " in row.sentence
    assert row.sentence.index("3 teachers") < row.sentence.index("over 2 student seeds of these teachers")
    assert [one.over for one in found.summary] == ["3 teachers", *["3 teachers, 2 seeds each"] * 2]
    alone = compute_results([one for one in records if one.teacher == "seed 0" and one.seed == 0], {})
    assert alone.summary[1].values["top1"].notes["low"] == ONE_SEED
