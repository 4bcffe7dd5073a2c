from __future__ import annotations

from dataclasses import replace

import numpy as np

from study.comparison import (
    Contrast,
    Difference,
    above,
    caution,
    compare,
    decide,
    primary_sentence,
    rest_sentence,
    with_holm,
)


def contrast(result: Difference, measure: str = "following") -> Contrast:
    return Contrast({}, "", "A", "B", measure, result, {}, None)


def answer(differences: list[float], margin: float = 0.02) -> tuple[str, str]:
    first = dict(enumerate(0.3 + np.asarray(differences)))
    row = replace(contrast(compare(first, dict.fromkeys(first, 0.3))), name="H1", margin=margin)
    decision = decide(row)
    text = primary_sentence(replace(row, decision=decision))
    assert text.startswith(f"H1, {decision}: ")
    return decision, text.removeprefix(f"H1, {decision}: ")


def test_the_hypothesis_in_all_its_cases():
    wiggle = np.array([-1, 1, 0, -1, 1]) / 1000  # half-width of the interval: 0.124 points
    decision, text = answer(wiggle)
    assert decision == "equivalent"
    expected = "A minus B is 0.0 points, 95 % −0.1 to 0.1, over 5 seeds"
    assert text == f"cue following of A and B is equivalent within ±2 points: {expected}"
    decision, text = answer(wiggle + 0.01)
    assert decision == "higher, by less than the margin"
    expected = "cue following is 1.0 points higher with A than with B, 95 % 0.9 to 1.1, over 5 seeds"
    assert text == f"{expected}: a difference, but within ±2 points"
    decision, text = answer(wiggle - 0.05)
    assert decision == "lower"
    assert text == "cue following is 5.0 points lower with A than with B, 95 % 4.9 to 5.1, over 5 seeds"
    decision, text = answer(20 * wiggle + 0.03)
    assert decision == "higher" and text.endswith(
        "0.5 to 5.5, over 5 seeds; whether by more than 2 points is open"
    )
    decision, text = answer(20 * wiggle)
    assert decision == "undecided" and text.startswith("neither a difference nor equivalence within ±2")
    decision, text = answer([0.1])
    assert decision == "undecided" and text.endswith("10.0 points over one seed, which gives no interval")
    assert "no seed has a value of both" in answer([])[1]


def claimed(differences: list[float], exceeds: float, tests: int = 1) -> Contrast:
    """A row of a hypothesis that A - B exceeds a threshold, one of so many alike."""
    first = dict(enumerate(0.3 + np.asarray(differences)))
    result = above(compare(first, dict.fromkeys(first, 0.3)), exceeds)
    row = with_holm([replace(contrast(result), name="H2", exceeds=exceeds)] * tests)[0]
    return replace(row, decision=decide(row))


def test_a_difference_above_a_threshold():
    differences = [0.10, 0.14, 0.12, 0.08, 0.16]  # mean 0.12, deviation 0.1 ** 1.5
    row = claimed(differences, 0.05)
    t = 0.07 / (0.1**1.5 / 5**0.5)
    ratio = t / (1 + t**2 / 4) ** 0.5
    upper = 0.5 - 3 / 8 * ratio * (1 - ratio**2 / 12)  # of Student's t with 4 degrees of freedom
    assert np.isclose(row.result.t, t) and np.isclose(row.result.p, upper) and 0.0038 < upper < 0.0039
    assert np.allclose((row.result.low, row.result.high), (0.0807351, 0.1592649))
    expected = "that cue following of A minus that of B is above 5 points; A minus B is 12.0 points"
    assert primary_sentence(row) == f"H2, shown: {expected}, 95 % 8.1 to 15.9, over 5 seeds, p = 0.004 by Holm"
    assert claimed(differences, 0.05, tests=12).decision == "shown"  # 12 * 0.0039 < 0.05
    assert claimed(differences, 0.05, tests=13).decision == "not shown"
    assert claimed(differences, 0.1).decision == claimed(differences, 0.159).decision == "not shown"
    low = claimed(differences, 0.16)
    assert low.decision == "contradicted" and low.result.p > 0.95
    assert claimed([-d for d in differences], -0.2).decision == "shown"
    assert claimed([0.1], 0).decision == claimed([], 0).decision == "not shown"
    assert claimed([0.1, 0.1], 0).result.p is None
    assert "by Holm" not in primary_sentence(claimed([0.1], 0))


def test_lower_following_through_lower_accuracy_is_called_so():
    seeds = range(5)
    less, more = {s: 0.1 + s / 1000 for s in seeds}, {s: 0.3 - s / 1000 for s in seeds}
    accurate, poor = dict.fromkeys(seeds, 0.9), {s: 0.6 + s / 1000 for s in seeds}
    for first, second, own, other in ((less, more, poor, accurate), (more, less, accurate, poor)):
        row = contrast(compare(first, second))
        text = caution(row, compare(own, other))
        lower = "A" if first is less else "B"
        assert text.startswith(
            f"{lower} follows the cue less, but its unbiased accuracy is lower too, by 29.8 points"
        )
        assert "95 % 29.6 to 30.0: lower following through lower accuracy is not mitigation" in text
        assert caution(row, compare(other, own)) is None
        assert caution(replace(row, measure="clean"), compare(own, other)) is None


def test_a_sentence_of_the_rest_without_a_difference():
    row = contrast(compare({0: 0.5, 1: 0.7}, {0: 0.6, 1: 0.5}), "unbiased")
    text = rest_sentence(replace(row, holm_p=0.8))
    assert text.startswith(
        "no difference in unbiased accuracy shown between A and B: A minus B is 5.0 points, 95 %"
    )
    assert text.endswith("over 2 seeds, p = 0.800")
