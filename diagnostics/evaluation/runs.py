"""Several runs beside each other: the paper's table with one column a run, and tests of a method across runs.

All that a run has in its own report is taken from there; only the tests across runs are computed.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from diagnostics.cost import CostRatio
from diagnostics.evaluation.evaluated import TEACHER, Evaluation, missing_models
from diagnostics.evaluation.pairs import adjust, compare_seeds, compare_two
from diagnostics.evaluation.results import (
    SCHEMA_VERSION,
    Ensemble,
    MethodOverSeeds,
    MethodsCompared,
    ModelAccuracy,
    Pair,
    Representation,
)
from diagnostics.generalisation import Gap
from diagnostics.names import is_first
from diagnostics.plain import FLAT, section
from diagnostics.stability import Stability


@dataclass(frozen=True)
class ModelOfRun:
    """A model and the run that it is of."""

    run: str
    accuracy: ModelAccuracy = field(metadata=FLAT)


@dataclass(frozen=True)
class RunSummary:
    """A column of the paper's table: teacher and student of a run, as its own report has them.

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
    notes: list[str]  # what was not tested, and why
    missing: list[str]  # what a run's config asks for and its report has not


def compare_runs(runs: Sequence[Evaluation]) -> RunsCompared:
    """All models of all runs, and each method of one run against the same method of another.

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
            pairs += _on_images(first, second)
            seeds += _over_seeds(first, second)
        else:
            notes.append(f"{first.run} and {second.run} have other test images: not tested")
    missing = [line for run in runs for line in missing_models(run)]
    summaries = [summary(run) for run in runs]
    return RunsCompared(SCHEMA_VERSION, summaries, rows, adjust(pairs), seeds, notes, missing)


def summary(run: Evaluation) -> RunSummary:
    """What a run's report says of its teacher and its student."""
    report = run.report
    by_name = {model.name: model for model in report.models}
    name, claims = report.main or "", report.claims
    student = by_name.get(name)
    cost, config = report.cost.get(name), report.context.config
    return RunSummary(
        run=run.run,
        source=str(section(config, "data").get("source", "")),
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


def _title(run: Evaluation, model: str) -> str:
    return f"{run.run}:{model}"


def _by_key(run: Evaluation) -> dict[tuple[str, int | None], str]:
    """Names of the models by method and seed."""
    return {(model.method, model.seed): model.name for model in run.report.models}


def _on_images(first: Evaluation, second: Evaluation) -> list[Pair]:
    own, others = _by_key(first), _by_key(second)
    found = []
    for method, seed in own:
        if (method, seed) in others:
            a, b = own[method, seed], others[method, seed]
            titles = [_title(run, f"{method}" if seed is None else f"{method}/{seed}") for run in (first, second)]
            found.append(compare_two(titles[0], first.right[a], titles[1], second.right[b]))
    return found


def _over_seeds(first: Evaluation, second: Evaluation) -> list[MethodsCompared]:
    own, others = _by_seed(first), _by_seed(second)
    found = [
        compare_seeds(_title(first, method), _title(second, method), own[method], others[method])
        for method in own
        if method in others
    ]
    return [comparison for comparison in found if comparison is not None]


def _by_seed(run: Evaluation) -> dict[str, dict[int, float]]:
    """Accuracy by method and seed, of the students."""
    accuracies: dict[str, dict[int, float]] = {}
    for model in run.report.models:
        if model.seed is not None:
            accuracies.setdefault(model.method, {})[model.seed] = model.top1
    return accuracies
