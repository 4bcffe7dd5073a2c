"""Whether a study was fit to answer: what each of its models must show, judged by the worst of them.

Values are (place, value): a point and seed in words, and a number, None where it was not recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from diagnostics.aligned import LEAST, MOST_GAIN
from diagnostics.seeds import plain_number

Values = Sequence[tuple[str, float | None]]
LEAST_GAP = 0.20  # aligned less conflicting accuracy, from which on a teacher counts as biased
MOST_GAP = 0.05  # and up to which, either way, as unbiased
LEAST_CUE_READ = 0.90  # accuracy of the cue-only probe
MOST_FALL = 0.05  # relative fall of the training KL from the last quarter of the epochs but one to the last


@dataclass(frozen=True)
class Check:
    """One check with its worst value; passed and value are None where there was nothing to check."""

    name: str
    passed: bool | None
    value: float | None
    limit: float
    sentence: str
    failed: list[str]  # the places that fail


def biased_teachers(gaps: Values) -> Check:
    """Check that biased teachers are biased.

    gaps: aligned less conflicting test accuracy of each teacher trained on biased cues.
    """
    what = "aligned less conflicting accuracy of the biased teacher"
    return _check("teacher_biased", gaps, LEAST_GAP, "at least", what, " points")


def unbiased_teachers(gaps: Values) -> Check:
    """Check that unbiased teachers are not biased.

    gaps: aligned less conflicting test accuracy of each teacher trained on random cues.
    """
    sizes = [(place, None if gap is None else abs(gap)) for place, gap in gaps]
    what = "size of aligned less conflicting accuracy of the unbiased teacher"
    return _check("teacher_unbiased", sizes, MOST_GAP, "at most", what, " points")


def cue_readable(accuracies: Values) -> Check:
    """Check that the cue can be read.

    accuracies: of a probe that reads the cue alone off augmented images.
    """
    what = "accuracy of a cue-only probe after augmentation"
    return _check("cue_readable", accuracies, LEAST_CUE_READ, "at least", what, " %")


def converged(falls: Values) -> Check:
    """Check that the training KL has come to rest.

    falls: `final_fall` of each last stage of a staged method.
    """
    what = "fall of the last stage's training KL from the last quarter of epochs but one to the last"
    return _check("converged", falls, MOST_FALL, "at most", what, " %")


def stage1_aligned(values: Values) -> Check:
    """Check that each stage 1 has aligned.

    values: its last cosine, or explained variance, on held-out images.
    """
    what = "stage 1's cosine, or share of variance explained, on held-out images"
    return _check("stage1_aligned", values, LEAST, "at least", what, " %")


def stage1_at_rest(gains: Values) -> Check:
    """Check that the alignment of each stage 1 has come to rest.

    gains: what the last quarter of the epochs added to it.
    """
    what = "gain of the same over the last quarter of stage 1"
    return _check("stage1_at_rest", gains, MOST_GAIN, "at most", what, " points")


def final_fall(history: Sequence[float]) -> float | None:
    """Return the relative fall of the mean from the last quarter of epochs but one to the last.

    None with fewer than two epochs. Means, since every epoch shows other views, whose KL differs by itself.
    """
    epochs = max(1, len(history) // 4)
    if len(history) < 2:
        return None
    before, last = np.mean(history[-2 * epochs : -epochs]), np.mean(history[-epochs:])
    return float(1 - last / before) if before > 0 else 0.0


def _check(
    name: str, values: Values, limit: float, bound: Literal["at least", "at most"], what: str, unit: str
) -> Check:
    sign = 1 if bound == "at least" else -1
    found = [(value, place) for place, value in values if value is not None]
    if not found:
        return Check(name, None, None, limit, f"recorded for no model: {what}", [])
    worst, where = min(found, key=lambda pair: sign * pair[0])
    failed = [place for value, place in found if sign * (value - limit) < 0]
    result = f"{len(failed)} of {len(found)} fail" if failed else f"passed by all {len(found)}"
    value = f"{plain_number(100 * worst, 1)}{unit} ({where})"
    sentence = f"{what} must be {bound} {100 * limit:g}{unit}: {result}, at worst {value}"
    return Check(name, not failed, float(worst), limit, sentence, failed)
