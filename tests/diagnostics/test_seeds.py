from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from diagnostics.seeds import compare_over_seeds, describe_difference, summarise, summarise_shares


def test_summary_literal() -> None:
    result = summarise([70.0, 72.0, 74.0])
    half_width = 4.302653 * 2 / 3**0.5  # t of 2 degrees of freedom at 0.975
    assert (result.n, result.mean, result.sd) == (3, 72, pytest.approx(2))
    assert (result.low, result.high) == pytest.approx((72 - half_width, 72 + half_width))
    assert result.notes == {}


def test_interval_of_shares_is_the_logits() -> None:
    shares = [0.90, 0.95, 0.99]
    mean, error = np.mean(shares), np.std(shares, ddof=1) / 3**0.5
    margin = 4.302653 * error / (mean * (1 - mean))
    bounds = [1 / (1 + np.exp(-(np.log(mean / (1 - mean)) + side * margin))) for side in (-1, 1)]
    result = summarise_shares(shares)
    assert (result.low, result.high) == pytest.approx(bounds)
    assert summarise(shares).high > 1  # what the plain t-interval claims
    assert summarise_shares([1.0, 1.0]).low is None  # no spread, no interval
    with pytest.raises(ValueError, match="between 0 and 1"):
        summarise_shares([0.5, 1.2])


@pytest.mark.parametrize(("a", "b"), [(1, 30), (2, 5), (6, 6)])
def test_intervals_of_shares_cover_the_mean(a, b) -> None:
    rng = np.random.default_rng(0)
    found = [summarise_shares(rng.beta(a, b, 10)) for _ in range(2000)]
    covered = np.mean([result.low <= a / (a + b) <= result.high for result in found])
    assert 0.91 < covered < 0.97
    assert all(0 < result.low < result.mean < result.high < 1 for result in found)


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.integers(2, 10), st.integers(0, 1000))
def test_comparison_agrees_with_scipy(n, seed) -> None:
    rng = np.random.default_rng(seed)
    a = rng.normal(70, 2, n)
    b = a + rng.normal(1, 1, n)
    ours, reference = compare_over_seeds(a, b), stats.ttest_rel(b, a)
    interval = reference.confidence_interval(0.95)
    assert (ours.t, ours.p) == pytest.approx((reference.statistic, reference.pvalue))
    assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high))
    assert ours.difference == pytest.approx(ours.mean_b - ours.mean_a)
    if n >= 6:
        assert ours.wilcoxon_p == pytest.approx(stats.wilcoxon(b, a, method="exact").pvalue)
    else:
        assert ours.wilcoxon_p is None and "6 seeds" in ours.notes["wilcoxon_p"]


def test_wilcoxon_with_ties_counts_every_assignment_of_signs() -> None:
    right_a = np.array([300, 317, 303, 295, 311, 307, 302])
    right_b = right_a + np.array([4, 4, 8, -4, 12, 8, 0])
    ranks = np.array([2, 2, 4.5, 2, 6, 4.5])
    sums = [ranks[list(signs)].sum() for signs in itertools.product([False, True], repeat=6)]
    expected = 2 * np.mean(np.array(sums) >= ranks.sum() - 2)
    result = compare_over_seeds(right_a / 360, right_b / 360)  # divided, ties are equal but for rounding
    assert result.wilcoxon_p == pytest.approx(expected)


def test_one_seed_gives_a_difference_and_nothing_else() -> None:
    result = compare_over_seeds([70.0], [71.5])
    assert result.difference == 1.5
    missing = {"sd", "low", "high", "t", "p", "wilcoxon_p"}
    assert {name for name, value in dataclasses.asdict(result).items() if value is None} == missing
    assert set(result.notes) == missing
    assert set(summarise([70.0]).notes) == {"sd", "low", "high"}


@pytest.mark.parametrize(("shift", "wilcoxon_p"), [(0, 1.0), (4, 2 / 2**6)])
def test_identical_differences_have_no_interval(shift, wilcoxon_p) -> None:
    right_a = np.array([300, 317, 303, 295, 311, 307])
    result = compare_over_seeds(right_a / 360, (right_a + shift) / 360)
    assert result.difference == pytest.approx(shift / 360)
    assert result.sd == 0
    assert (result.low, result.high, result.t, result.p) == (None, None, None, None)
    assert result.wilcoxon_p == pytest.approx(wilcoxon_p)
    assert set(result.notes) == {"low", "high", "t", "p"}
    json.dumps(dataclasses.asdict(result), allow_nan=False)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="same seeds"):
        compare_over_seeds([1.0, 2.0], [1.0])
    for wrong in ([], [float("nan")]):
        with pytest.raises(ValueError, match="finite"):
            summarise(wrong)
    with pytest.raises(ValueError, match="basis"):
        describe_difference("a", "b", 1.0, 0.5, 1.5, (5, "runs"))
    with pytest.raises(ValueError, match="both"):
        describe_difference("a", "b", 1.0, None, 1.5, (5, "seeds"))


def test_interval_does_not_overrule_the_test() -> None:
    told = describe_difference("teacher", "scratch", -1.1, -2.2, -0.2, (540, "images"), p=0.07)
    assert told.startswith("no difference shown between scratch and teacher: −1.1 points")
    assert told.endswith("95 % −2.2 to −0.2 but p = 0.070 by Holm, over 540 test images")
    assert "worse" in describe_difference("teacher", "scratch", -1.1, -2.2, -0.2, (540, "images"), p=0.04)


NONE_SHOWN = "no difference shown between two_stage and scratch:"


@pytest.mark.parametrize(
    ("difference", "interval", "basis", "expected"),
    [
        (
            1.2,
            (0.4, 2.0),
            (5, "seeds"),
            "two_stage is 1.2 points better than scratch, 95 % 0.4 to 2.0, over 5 student seeds of one teacher",
        ),
        (
            -1.2,
            (-2.0, -0.4),
            (5, "seeds"),
            "two_stage is 1.2 points worse than scratch, 95 % 0.4 to 2.0, over 5 student seeds of one teacher",
        ),
        (
            0.3,
            (-0.5, 1.1),
            (10_000, "images"),
            f"{NONE_SHOWN} 0.3 points, 95 % −0.5 to 1.1, over 10,000 test images",
        ),
        (-0.04, (-0.1, 0.0), (500, "images"), f"{NONE_SHOWN} 0.0 points, 95 % −0.1 to 0.0, over 500 test images"),
        (0.5, (0.0, 1.0), (500, "images"), f"{NONE_SHOWN} 0.5 points, 95 % 0.0 to 1.0, over 500 test images"),
        (1.2, (None, None), (1, "seeds"), f"{NONE_SHOWN} 1.2 points, and one seed gives no interval"),
        (0.0, (None, None), (1, "images"), f"{NONE_SHOWN} 0.0 points, and one image gives no interval"),
        (1.0, (None, None), (3, "seeds"), f"{NONE_SHOWN} 1.0 points, and these 3 seeds give no interval"),
    ],
)
def test_sentence(difference, interval, basis, expected) -> None:
    assert describe_difference("scratch", "two_stage", difference, *interval, basis) == expected  # type: ignore[call-arg]
