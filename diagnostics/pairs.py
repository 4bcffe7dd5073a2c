"""Two models side by side: on the same images, and over the same seeds.

Letters: N test images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from diagnostics.comparison import (
    DifferenceInterval,
    bootstrap_difference,
    holm,
    smallest_detectable_difference,
    wilson_interval,
)
from diagnostics.recording import Recording, Recordings
from diagnostics.seeds import SeedComparison, compare_over_seeds, sentence
from diagnostics.statistics import count, paired_statistics

Section = dict[str, Any]
Basis = tuple[int, Literal["seeds", "images"]]


def right(model: Recording, recordings: Recordings) -> NDArray[np.bool_]:
    """Where a model is right, (N,)."""
    return model.logits.argmax(axis=1) == recordings.labels


def accuracy(model: Recording, correct: NDArray[np.bool_]) -> Section:
    """Top-1 of a model with its Wilson interval."""
    low, high = wilson_interval(int(correct.sum()), len(correct))
    kept = {key: model.meta[key] for key in ("name", "method", "seed", "arch", "weights_hash")}
    return {**kept, "top1": float(correct.mean()), "low": low, "high": high}


def compare_two(name_a: str, a: NDArray[np.bool_], name_b: str, b: NDArray[np.bool_]) -> Section:
    """Every paired statistic of two models, right or wrong on the same images (N,), and the sentence it allows."""
    statistics = paired_statistics(count(a, b))
    interval = bootstrap_difference(a, b, seed=0)
    return {
        "a": name_a,
        "b": name_b,
        **asdict(statistics),
        "quoted_p": statistics.quoted_test.p,
        "quoted_log10_p": statistics.quoted_test.log10_p,
        "interval": asdict(interval),
        "detectable": asdict(smallest_detectable_difference(len(a), statistics.disagreement)),
        "sentence": _sentence(name_a, name_b, interval, (len(a), "images"), statistics.quoted_test.p),
    }


def adjust(pairs: Sequence[Section]) -> list[Section]:
    """The same pairs with Holm's correction over all of them."""
    adjusted = holm([pair["quoted_log10_p"] for pair in pairs], log10=True)
    return [{**pair, "holm_log10_p": value} for pair, value in zip(pairs, adjusted, strict=True)]


def compare_seeds(name_a: str, name_b: str, a: dict[int, float], b: dict[int, float]) -> Section | None:
    """Paired comparison of accuracies by seed; None where fewer than two seeds are shared."""
    shared = sorted(a.keys() & b.keys())
    if len(shared) < 2:
        return None
    result = compare_over_seeds([a[seed] for seed in shared], [b[seed] for seed in shared])
    text = _sentence(name_a, name_b, result, (len(shared), "seeds"))
    return {"a": name_a, "b": name_b, "seeds": shared, **asdict(result), "sentence": text}


def _sentence(
    name_a: str, name_b: str, result: DifferenceInterval | SeedComparison, basis: Basis, p: float | None = None
) -> str:
    bounds = [None if bound is None else 100 * bound for bound in (result.low, result.high)]
    return sentence(name_a, name_b, 100 * result.difference, *bounds, basis, p)
