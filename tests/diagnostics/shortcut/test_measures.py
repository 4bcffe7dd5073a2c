from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from diagnostics.shortcut.measures import (
    CuedAnswers,
    CuedImages,
    ShortcutMeasures,
    compute_accuracy_gap,
    compute_excess_following,
    compute_fieller_interval,
    compute_following,
    compute_inheritance,
    measure_shortcut,
)

CLASSES = 10
CLASSES_CUE = np.random.default_rng(7).permutation(CLASSES)
LABELS = np.repeat(np.arange(CLASSES), 20)
ALL_CUES = np.tile(np.arange(CLASSES), (len(LABELS), 1))


def make_answers(labels, cues, predictions, clean, classes_cue) -> CuedAnswers:
    return CuedAnswers(CuedImages(labels, cues, classes_cue), predictions, clean)


def make_shown(predictions, clean=None) -> CuedAnswers:
    return make_answers(LABELS, ALL_CUES, np.broadcast_to(predictions, ALL_CUES.shape), clean, CLASSES_CUE)


def test_a_model_that_only_reads_the_cue() -> None:
    result = measure_shortcut(make_shown(np.argsort(CLASSES_CUE)[ALL_CUES], clean=np.zeros_like(LABELS)))
    assert (result.aligned, result.conflicting, result.unbiased) == (1, 0, pytest.approx(1 / CLASSES))
    assert (result.following, result.cue_bias, result.flip_rate, result.worst_group) == (1, 1, 1, 0)
    assert (result.clean, compute_accuracy_gap(result)) == (0.1, 1)
    assert (result.images, result.shows) == (200, 10)


def test_blind_model_follows_at_its_confusion_rate() -> None:
    wrong = np.arange(len(LABELS)) % 20 < 4  # one in five images of each class, taken for the next class
    answers = np.where(wrong, (LABELS + 1) % CLASSES, LABELS)
    result = measure_shortcut(make_shown(answers[:, None], clean=answers))
    for name in ("aligned", "conflicting", "unbiased", "worst_group", "clean"):
        assert getattr(result, name) == pytest.approx(0.8)
    assert (result.flip_rate, compute_accuracy_gap(result)) == (0, pytest.approx(0))
    assert result.following == pytest.approx(0.2 / 9)  # of its nine wrong cues, one is that of the next class
    assert result.cue_bias == pytest.approx(0.2 / 9 / (0.2 / 9 + 0.8))
    reader = measure_shortcut(make_shown(np.argsort(CLASSES_CUE)[ALL_CUES]))
    assert compute_excess_following(reader, result) == pytest.approx(1 - 0.2 / 9)


def test_a_model_that_guesses() -> None:
    guesses = np.random.default_rng(0).integers(CLASSES, size=(50, *ALL_CUES.shape))
    results = [measure_shortcut(make_shown(one)) for one in guesses]
    for name, chance in {
        "aligned": 0.1,
        "conflicting": 0.1,
        "following": 0.1,
        "cue_bias": 0.5,
        "flip_rate": 0.9,
    }.items():
        values = [getattr(result, name) for result in results]
        assert np.mean(values) == pytest.approx(chance, abs=5 * np.std(values) / 50**0.5)


def test_many_classes_with_one_cue_by_hand() -> None:
    """Classes 0 and 1 have cue 0, classes 2 and 3 cue 1; each image under both; teacher and student."""
    labels, cues, classes_cue = np.array([0, 1, 2, 3]), np.tile([0, 1], (4, 1)), np.array([0, 0, 1, 1])
    student = make_answers(
        labels, cues, np.array([[0, 2], [0, 1], [2, 2], [1, 3]]), np.array([0, 1, 2, 2]), classes_cue
    )
    teacher = make_answers(labels, cues, np.array([[0, 3], [1, 1], [1, 2], [1, 3]]), None, classes_cue)
    result = measure_shortcut(student, teacher)
    assert (result.aligned, result.conflicting, result.unbiased) == (3 / 4, 2 / 4, 5 / 8)
    assert (result.following, result.cue_bias) == (2 / 4, 2 / 4)  # 0 -> 2 under cue 1, 3 -> 1 under cue 0
    assert (result.flip_rate, result.clean) == (3 / 4, 3 / 4)
    assert (result.fidelity_aligned, result.fidelity_conflicting) == (3 / 4, 2 / 4)
    assert (result.fidelity_followed, result.also_followed) == (1 / 3, 2 / 3)  # the teacher follows on three
    assert compute_following(student).tolist() == [1, 0, 0, 1]
    assert result.worst_group is None and result.notes == {
        "worst_group": "8 of 8 groups have fewer than 10 images."
    }
    json.dumps(dataclasses.asdict(result), allow_nan=False)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(2, 6))
def test_measures_agree_with_a_loop(seed, shows, classes) -> None:
    rng = np.random.default_rng(seed)
    labels, classes_cue = rng.integers(classes, size=30), rng.integers(3, size=classes)
    cues = np.stack([rng.permutation(5)[:shows] for _ in labels])  # cues 3 and 4 belong to no class
    predictions = rng.integers(classes, size=cues.shape)
    result = measure_shortcut(make_answers(labels, cues, predictions, None, classes_cue))
    cells: dict = {}
    conflicting, following, cue_or_right, flips = [], [], [], []
    for i, y in enumerate(labels):
        for g, p in zip(cues[i], predictions[i], strict=True):
            cells.setdefault((y, g), []).append(p == y)
            if classes_cue[y] != g:
                conflicting.append(p == y)
                if g in classes_cue:
                    following.append(classes_cue[p] == g)
                    cue_or_right += [bool(classes_cue[p] == g)] if classes_cue[p] == g or p == y else []
        flips += [a != b for a, b in itertools.combinations(predictions[i], 2)]
    assert result.unbiased == pytest.approx(np.mean([np.mean(cell) for cell in cells.values()]))
    expected = {"conflicting": conflicting, "following": following, "cue_bias": cue_or_right, "flip_rate": flips}
    for name, hits in expected.items():
        assert getattr(result, name) == (pytest.approx(np.mean(hits)) if hits else None)
        assert hits or name in result.notes


def test_undefined_measures_say_why() -> None:
    clean_only = {"labels": np.array([0, 1]), "clean": None, "classes_cue": np.array([0, 1])}
    aligned = measure_shortcut(
        make_answers(cues=np.array([[0], [1]]), predictions=np.array([[0], [1]]), **clean_only)
    )
    for name in ("conflicting", "following", "cue_bias", "flip_rate", "clean", "worst_group", "also_followed"):
        assert getattr(aligned, name) is None and aligned.notes[name]
    assert aligned.unbiased == 1 and aligned.notes["unbiased"].startswith("2 of 4 groups")
    assert compute_accuracy_gap(aligned) is None and compute_excess_following(aligned, aligned) is None
    only = make_answers(cues=np.array([[0], [0]]), predictions=np.array([[0], [1]]), **clean_only)
    assert np.isnan(compute_following(only)).tolist() == [True, False]


def test_wrong_input_is_refused() -> None:
    good = {
        "labels": LABELS,
        "cues": ALL_CUES,
        "predictions": ALL_CUES,
        "clean": LABELS,
        "classes_cue": CLASSES_CUE,
    }
    wrong = {
        "cues": [(ALL_CUES * 0, "differ within"), (ALL_CUES - 1, "outside 0"), (LABELS, "cues must have")],
        "predictions": [(ALL_CUES[:, :3], "not"), (ALL_CUES + 1, "outside 0"), (ALL_CUES / 2, "integers")],
        "clean": [(LABELS[:3], "clean")],
        "labels": [(LABELS[:0], "images")],
    }
    for name, cases in wrong.items():
        for value, message in cases:  # type: ignore[attr-defined]
            with pytest.raises(ValueError, match=message):
                make_answers(**{**good, name: value})
    with pytest.raises(ValueError, match="cues differ"):
        measure_shortcut(make_answers(**good), make_answers(**{**good, "cues": ALL_CUES[:, ::-1]}))


def draw_following(rng, rates, n) -> np.ndarray:
    """Following per image of nine conflicting shows, (S, n), with a rate for each seed."""
    return rng.binomial(9, np.asarray(rates)[:, None], (len(rates), n)) / 9


def test_inheritance_of_all_and_of_nothing() -> None:
    rng = np.random.default_rng(0)
    biased, unbiased = draw_following(rng, [0.5, 0.6, 0.4], 100), draw_following(rng, [0.05] * 3, 100)
    same = compute_inheritance(biased, unbiased, biased, unbiased)
    assert (same.low, same.high) == pytest.approx((1, 1), abs=1e-6)
    assert (same.value, same.seeds, same.notes) == (1, 3, {})
    nothing = compute_inheritance(unbiased, unbiased, biased, unbiased)
    assert (nothing.value, nothing.low, nothing.high) == (0, 0, 0)
    hole = biased.copy()
    hole[:, :50] = np.nan  # images without a conflicting show are left out
    biased[:, :50] = 1 - biased[:, :50]
    assert compute_inheritance(hole, unbiased, biased, unbiased).value == 1


def test_inheritance_is_not_given_where_teachers_hardly_differ() -> None:
    rng = np.random.default_rng(0)
    low = draw_following(rng, [0.05, 0.05], 100)
    result = compute_inheritance(low, low, low + 0.01, low)
    assert result.value is None and set(result.notes) == {"value", "low", "high"}
    result = compute_inheritance(low, low, np.stack([low[0] + 0.5, low[1]]), low)  # one of two seeds is no teacher
    assert result.value == 0 and result.low is None and "no bounds" in result.notes["low"]
    result = compute_inheritance(low[:1], low[:1], low[:1] + 0.5, low[:1])
    assert result.value == 0 and result.low is None and "One seed" in result.notes["low"]
    with pytest.raises(ValueError, match="S, n"):
        compute_inheritance(low, low, low[:, :50], low)
    with pytest.raises(ValueError, match="each seed"):
        compute_inheritance(low * np.nan, low, low, low)


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_interval_of_inheritance_covers(seeds) -> None:
    # A bootstrap over seeds and images covered 83, 88 and 90 % of the time with these numbers of seeds.
    rng, trials, truth = np.random.default_rng(seeds), 600, 0.6
    covered = 0
    for _ in range(trials):
        theirs = 0.5 + 0.08 * rng.standard_normal(seeds)  # the teachers' difference of each seed
        own = truth * theirs + 0.05 * rng.standard_normal(seeds)
        fair = np.full((seeds, 1), 0.1)
        result = compute_inheritance(fair + own[:, None], fair, fair + theirs[:, None], fair)
        covered += result.low is None or result.low <= truth <= result.high  # without bounds all ratios are in it
    assert covered / trials == pytest.approx(0.95, abs=0.03)


def test_fieller_bounds_are_at_the_t_tests_limit() -> None:
    rng = np.random.default_rng(0)
    theirs = 0.5 + 0.1 * rng.standard_normal(6)
    own = 0.7 * theirs + 0.05 * rng.standard_normal(6)
    low, high = compute_fieller_interval(own, theirs)
    assert low < own.mean() / theirs.mean() < high
    for bound in (low, high):
        assert stats.ttest_1samp(own - bound * theirs, 0).pvalue == pytest.approx(0.05, abs=1e-9)
    assert compute_fieller_interval(own, theirs - theirs.mean()) is None


def test_measures_are_plain_numbers() -> None:
    result = dataclasses.asdict(measure_shortcut(make_shown(ALL_CUES, LABELS), make_shown(ALL_CUES, LABELS)))
    json.dumps(result, allow_nan=False)
    assert {field.name for field in dataclasses.fields(ShortcutMeasures)} == set(result)
    assert result["fidelity_conflicting"] == 1 and all(type(v) is not np.float64 for v in result.values())
