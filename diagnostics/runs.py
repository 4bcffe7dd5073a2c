"""Several runs in one table, and tests of the same method across them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from diagnostics.pairs import accuracy, adjust, compare_seeds, compare_two, right
from diagnostics.plain import FLAT
from diagnostics.recording import Recording
from diagnostics.results import MethodsCompared, ModelAccuracy, Pair

Correct = dict[tuple[str, int | None], NDArray[np.bool_]]  # (method, seed) -> where it is right, (N,)


@dataclass(frozen=True)
class ModelOfRun:
    """A model and the run that it is of."""

    run: str
    accuracy: ModelAccuracy = field(metadata=FLAT)


@dataclass(frozen=True)
class RunsCompared:
    """All models of several runs, each method against the same one of another run, and what was not tested."""

    models: list[ModelOfRun]
    pairs: list[Pair]
    seeds: list[MethodsCompared]
    notes: list[str]


def compare_runs(runs: Sequence[Recording]) -> RunsCompared:
    """All models of all runs, and each method of one run against the same method of another.

    Runs with the same test images are compared image by image for each shared seed; where two or more seeds are
    shared, over the seeds as well. Runs with other test images stand in the table, with a note that says so.

    Raises:
        ValueError: two runs of one name.
    """
    names = [run.context.run for run in runs]
    if len(set(names)) != len(names):
        raise ValueError(f"runs must have names of their own, not {', '.join(names)}")
    rows = [
        ModelOfRun(run.context.run, accuracy(model, right(model, run)))
        for run in runs
        for model in run.models
        if model.meta.classifies
    ]
    pairs: list[Pair] = []
    seeds: list[MethodsCompared] = []
    notes: list[str] = []
    for first, second in itertools.combinations(runs, 2):
        if first.context.test and first.context.test == second.context.test:
            pairs += _on_images(first, second)
            seeds += _over_seeds(first, second)
        else:
            notes.append(f"{first.context.run} and {second.context.run} have other test images: not tested")
    return RunsCompared(rows, adjust(pairs), seeds, notes)


def _all_right(run: Recording) -> Correct:
    classifiers = [model for model in run.models if model.meta.classifies]
    return {(model.meta.method, model.meta.seed): right(model, run) for model in classifiers}


def _title(run: Recording, method: str, seed: int | None) -> str:
    return f"{run.context.run}:{method}" + ("" if seed is None else f"/{seed}")


def _on_images(first: Recording, second: Recording) -> list[Pair]:
    own, others = _all_right(first), _all_right(second)
    shared = [key for key in own if key in others]
    return [compare_two(_title(first, *key), own[key], _title(second, *key), others[key]) for key in shared]


def _over_seeds(first: Recording, second: Recording) -> list[MethodsCompared]:
    own, others = _by_seed(first), _by_seed(second)
    found = [
        compare_seeds(_title(first, method, None), _title(second, method, None), own[method], others[method])
        for method in own
        if method in others
    ]
    return [comparison for comparison in found if comparison is not None]


def _by_seed(run: Recording) -> dict[str, dict[int, float]]:
    """Accuracy by method and seed, of the students."""
    accuracies: dict[str, dict[int, float]] = {}
    for (method, seed), where in _all_right(run).items():
        if seed is not None:
            accuracies.setdefault(method, {})[seed] = float(where.mean())
    return accuracies
