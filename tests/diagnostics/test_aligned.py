from __future__ import annotations

import pytest

from diagnostics.aligned import evaluate_alignment


@pytest.mark.parametrize(
    ("values", "gain", "word"),
    [
        ([0.1, 0.5, 0.80, 0.83, 0.84, 0.84, 0.845, 0.845], 0.005, "aligned"),  # the last two against the sixth
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], 0.2, "still improving"),
        ([0.1, 0.2, 0.3, 0.32, 0.33, 0.33, 0.33, 0.33], 0.0, "not aligned"),
        ([0.1, 0.1, 0.1, 0.3], 0.2, "still improving"),
        ([0.9], None, "aligned"),
    ],
)
@pytest.mark.parametrize("measure", ["cosine_last", "explained_last"])
def test_verdicts(values, gain, word, measure) -> None:
    verdict = evaluate_alignment([{measure: value, "loss": 1.0} for value in values])
    assert (verdict.measure, verdict.value, verdict.word) == (measure, values[-1], word)
    assert verdict.gain == (None if gain is None else pytest.approx(gain))
    assert word in verdict.sentence and f"{values[-1]:.2f}" in verdict.sentence


def test_regression_is_judged_by_explained_variance() -> None:
    verdict = evaluate_alignment([{"cosine_last": 0.9, "explained_last": 0.2}])
    assert (verdict.measure, verdict.word) == ("explained_last", "not aligned")
    other = evaluate_alignment([{"cosine_stage1": 0.2, "cosine_stage2": 0.7}])
    assert (other.measure, other.word) == (
        "cosine_stage2",
        "aligned",
    ) and "at the stage2 tap 0.70" in other.sentence
    assert evaluate_alignment([]) is None and evaluate_alignment([{"loss": 1.0}]) is None
