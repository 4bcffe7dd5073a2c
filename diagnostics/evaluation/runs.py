"""Several runs beside each other: the paper's table with one column a run, and tests of a method across runs.

Numbers of one run come from its own report; only the tests across runs are computed.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from diagnostics.cost import CostRatio
from diagnostics.evaluation.pairs import (
    TEACHER_A_RUN,
    apply_holm,
    apply_holm_over_seeds,
    compare_seeds,
    compare_two,
)
from diagnostics.evaluation.results import (
    SCHEMA_VERSION,
    Ensemble,
    MethodOverSeeds,
    MethodsCompared,
    ModelAccuracy,
    Pair,
    Representation,
)
from diagnostics.evaluation.saved_evaluation import TEACHER, Evaluation, list_missing
from diagnostics.generalisation import Gap
from diagnostics.names import is_first
from diagnostics.plain import FLAT, get_section
from diagnostics.stability import Stability


@dataclass(frozen=True)
class ModelOfRun:
    """A model and its run."""

    run: str
    accuracy: ModelAccuracy = field(metadata=FLAT)


@dataclass(frozen=True)
class RunSummary:
    """A column of the paper's table: teacher and student of a run, as in its own report.

    Each part is None where the run has it not.
    """

    run: str
    source: str
    images: int
    teacher: ModelAccuracy | None
    student: ModelAccuracy | None  # the one that the report is about
    pair: Pair | None
    over_seeds: MethodOverSeeds | None  # of the student's method
    representation: Representation | None
    cost: CostRatio | None
    gap: Gap | None
    stability: Stability | None
    ensemble: Ensemble | None  # of teacher and student
    others: list[MethodsCompared]  # the student's method against each other one, over seeds
    against: list[Pair]  # the student against each other one of the first seed, on the images


@dataclass(frozen=True)
class RunsCompared:
    """All models of several runs, each method against the same one of another run, and what is missing."""

    schema_version: int  # `results.SCHEMA_VERSION`
    runs: list[RunSummary]
    models: list[ModelOfRun]
    pairs: list[Pair]
    seeds: list[MethodsCompared]
    notes: list[str]  # tests that were left out, and why
    missing: list[str]  # models of a run's config that its report lacks


def compare_runs(runs: Sequence[Evaluation]) -> RunsCompared:
    """Compare all models of all runs, and each method of one run with the same method of another.

    Runs with the same test images are compared image by image for each shared seed; where two or more seeds are
    shared, over the seeds as well. Runs with other test images stand in the table, with a note that says so.

    Raises:
        ValueError: two runs of one name.
    """
    names = [run.run for run in runs]
    if len(set(names)) != len(names):
        raise ValueError(f"runs must have names of their own, not {', '.join(names)}")
    rows = [ModelOfRun(run.run, model) for run in runs for model in run.report.models]
    pairs: list[Pair] = []
    seeds: list[MethodsCompared] = []
    notes: list[str] = []
    for first, second in itertools.combinations(runs, 2):
        test = first.report.context.test
        if test and test == second.report.context.test:
            pairs += _compare_on_images(first, second)
            seeds += _compare_on_seeds(first, second)
        else:
            notes.append(f"{first.run} and {second.run} have other test images: not tested")
    missing = [line for run in runs for line in list_missing(run)]
    summaries = [_summarise_run(run) for run in runs]
    seeds = apply_holm_over_seeds(seeds, TEACHER_A_RUN)
    return RunsCompared(SCHEMA_VERSION, summaries, rows, apply_holm(pairs), seeds, notes, missing)


def _summarise_run(run: Evaluation) -> RunSummary:
    report = run.report
    by_name = {model.name: model for model in report.models}
    name, claims = report.main or "", report.claims
    student = by_name.get(name)
    cost, config = report.cost.get(name), report.context.config
    return RunSummary(
        run=run.run,
        source=str(get_section(config, "data").get("source", "")),
        images=report.images,
        teacher=by_name.get(TEACHER),
        student=student,
        pair=next((pair for pair in report.pairs if (pair.a, pair.b) == (TEACHER, name)), None),
        over_seeds=report.seeds.methods.get(student.method) if student else None,
        representation=(report.representation or {}).get(name),
        cost=cost.ratio if cost else None,
        gap=claims.generalisation.get(name),
        stability=claims.stability.get(name),
        ensemble=next((row for row in claims.ensembles if row.members == [TEACHER, name]), None),
        others=[row for row in report.seeds.comparisons if row.b == name],
        against=[pair for pair in report.pairs if _is_against(pair, name)],
    )


def _is_against(pair: Pair, name: str) -> bool:
    return name in (pair.a, pair.b) and pair.a != TEACHER and is_first(pair.a) and is_first(pair.b)


def _compare_on_images(first: Evaluation, second: Evaluation) -> list[Pair]:
    own, others = (
        {(model.method, model.seed): model.name for model in run.report.models} for run in (first, second)
    )
    found = []
    for method, seed in own:
        if (method, seed) in others:
            model = method if seed is None else f"{method}/{seed}"
            a, b = first.right[own[method, seed]], second.right[others[method, seed]]
            found.append(compare_two(f"{first.run}:{model}", a, f"{second.run}:{model}", b))
    return found


def _compare_on_seeds(first: Evaluation, second: Evaluation) -> list[MethodsCompared]:
    own, others = _group_by_seed(first), _group_by_seed(second)
    pairs = [(f"{first.run}:{method}", f"{second.run}:{method}", method) for method in own if method in others]
    found = [compare_seeds(a, b, own[method], others[method]) for a, b, method in pairs]
    return [comparison for comparison in found if comparison is not None]


def _group_by_seed(run: Evaluation) -> dict[str, dict[int, NDArray[np.bool_]]]:
    """Return where the students are right, by method and seed."""
    found: dict[str, dict[int, NDArray[np.bool_]]] = {}
    for model in run.report.models:
        if model.seed is not None:
            found.setdefault(model.method, {})[model.seed] = run.right[model.name]
    return found
