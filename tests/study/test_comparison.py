from __future__ import annotations

from dataclasses import replace

import numpy as np

from study.comparison import Contrast, Difference, caution, compare, decide, primary_sentence, rest_sentence


def contrast(result: Difference, measure: str = "following") -> Contrast:
    return Contrast({}, "", "A", "B", measure, result, {}, None)


def answer(differences: list[float], margin: float = 0.02) -> tuple[str, str]:
    first = dict(enumerate(0.3 + np.asarray(differences)))
    row = contrast(compare(first, dict.fromkeys(first, 0.3)))
    decision = decide(row.result.low, row.result.high, margin)
    return decision, primary_sentence(replace(row, margin=margin, decision=decision))


def test_the_hypothesis_in_all_its_cases():
    wiggle = np.array([-1, 1, 0, -1, 1]) / 1000  # half-width of the interval: 0.124 points
    decision, text = answer(wiggle)
    assert decision == "equivalent"
    expected = "A minus B is 0.0 points, 95 % -0.1 to 0.1, over 5 seeds"
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
    assert decision == "undecided" and text.startswith("undecided, neither a difference nor equivalence within ±2")
    decision, text = answer([0.1])
    assert decision == "undecided" and text.endswith("10.0 points over one seed, which gives no interval")
    assert "no seed has a value of both" in answer([])[1]


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
