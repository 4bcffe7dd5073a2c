"""Two models side by side: on the same images, and over the same seeds.

Letters: N test images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from diagnostics.comparison import (
    DifferenceInterval,
    apply_holm_correction,
    compute_bootstrap_interval,
    compute_wilson_interval,
    find_detectable_difference,
)
from diagnostics.crossed import MeanError, estimate_crossed_error
from diagnostics.evaluation.recording import EvaluatedModel, Meta, RecordedModel, Recording
from diagnostics.evaluation.results import MethodsCompared, ModelAccuracy, Pair
from diagnostics.seeds import SeedComparison, compare_over_seeds, describe_difference
from diagnostics.statistics import compute_paired_statistics, count_pairs

ONE_TEACHER, TEACHER_A_RUN = " of one teacher", ", one teacher in each run"
NEVER_DIFFER = "Both methods are right on the same images with every seed."
RightBySeed = Mapping[int, NDArray[np.bool_]]  # (N,) each
Basis = tuple[int, Literal["seeds", "images"]]


def find_correct(model: RecordedModel, recording: Recording) -> NDArray[np.bool_]:
    """Return where a model is right, (N,)."""
    return np.asarray(model.logits.argmax(axis=1) == recording.labels)


def measure_accuracy(model: Meta | EvaluatedModel, correct: NDArray[np.bool_]) -> ModelAccuracy:
    """Measure the top-1 of a model with its Wilson interval."""
    low, high = compute_wilson_interval(int(correct.sum()), len(correct))
    top1 = float(correct.mean())
    return ModelAccuracy(model.name, model.method, model.seed, model.arch, model.weights_hash, top1, low, high)


def compare_two(name_a: str, a: NDArray[np.bool_], name_b: str, b: NDArray[np.bool_]) -> Pair:
    """Compute every paired statistic of two models on the same images (N,); `apply_holm` adds the sentence."""
    statistics = compute_paired_statistics(count_pairs(a, b))
    interval = compute_bootstrap_interval(a, b, seed=0)
    return Pair(
        name_a,
        name_b,
        statistics,
        statistics.quoted_test.p,
        statistics.quoted_test.log10_p,
        interval,
        find_detectable_difference(len(a), statistics.disagreement),
    )


def apply_holm(pairs: Sequence[Pair]) -> list[Pair]:
    """Add Holm's correction over all pairs, and the sentence that it allows."""
    adjusted = apply_holm_correction([pair.quoted_log10_p for pair in pairs], log10=True)
    found = [replace(pair, holm_log10_p=value) for pair, value in zip(pairs, adjusted, strict=True)]
    return [
        replace(
            pair,
            sentence=_describe(pair.a, pair.b, pair.interval, (pair.statistics.n, "images"), pair.holm_p),
        )
        for pair in found
    ]


def compare_seeds(name_a: str, name_b: str, a: RightBySeed, b: RightBySeed) -> MethodsCompared | None:
    """Compare where two methods are right, (N,) by seed; None where fewer than two seeds are shared.

    `apply_holm_over_seeds` adds the sentence.
    """
    shared = sorted(a.keys() & b.keys())
    if len(shared) < 2:
        return None
    result = compare_over_seeds(*([float(one[seed].mean()) for seed in shared] for one in (a, b)))
    gains = np.stack([b[seed].astype(np.float64) - a[seed] for seed in shared])  # (S, N)
    images, crossed = _measure_image_errors(gains)
    return MethodsCompared(name_a, name_b, shared, result, images=images, crossed=crossed)


def apply_holm_over_seeds(rows: Sequence[MethodsCompared], teachers: str = ONE_TEACHER) -> list[MethodsCompared]:
    """Add Holm's correction of the paired t-tests over all rows, and the sentence that it allows.

    teachers: whose students they are, for the sentence.
    """
    adjusted = apply_holm_correction([row.result.p for row in rows])
    described = [
        _describe(row.a, row.b, row.result, (len(row.seeds), "seeds"), p, teachers)
        for row, p in zip(rows, adjusted, strict=True)
    ]
    return [replace(row, holm_p=p, sentence=text) for row, p, text in zip(rows, adjusted, described, strict=True)]


def _measure_image_errors(gains: NDArray[np.float64]) -> tuple[DifferenceInterval, DifferenceInterval]:
    """Return the mean of gains (S, N) with its interval over test images, and over seeds and test images."""
    mean, images = float(gains.mean()), gains.shape[1]
    if images < 2 or not gains.any():
        same = DifferenceInterval(mean, None, None, dict.fromkeys(("low", "high"), NEVER_DIFFER))
        return same, same
    over_images = MeanError(float(gains.mean(axis=0).std(ddof=1)) / math.sqrt(images), images - 1)
    first, second = (
        DifferenceInterval(mean, mean - error.margin, mean + error.margin, {})
        for error in (over_images, estimate_crossed_error(gains))
    )
    return first, second


def _describe(
    name_a: str,
    name_b: str,
    result: DifferenceInterval | SeedComparison,
    basis: Basis,
    p: float | None = None,
    teachers: str = ONE_TEACHER,
) -> str:
    low, high = (None if bound is None else 100 * bound for bound in (result.low, result.high))
    return describe_difference(name_a, name_b, 100 * result.difference, low, high, basis, p, teachers)
