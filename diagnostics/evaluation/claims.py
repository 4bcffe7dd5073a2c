"""The paper's claims: ensembles, gaps, spread over seeds, steadiness, depth.

Letters: N test images, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from diagnostics.comparison import apply_holm_correction, compute_wilson_interval
from diagnostics.ensembles import MIN_VOTERS, average_probabilities, take_majority_vote
from diagnostics.evaluation.pairs import apply_holm, compare_two
from diagnostics.evaluation.recording import RecordedModel, Recording
from diagnostics.evaluation.results import Claims, Ensemble, OverSeeds, Pair, VariancesCompared
from diagnostics.generalisation import Gap, measure_gap
from diagnostics.names import choose_main, find_staged
from diagnostics.plain import get_section
from diagnostics.seeds import format_number, format_p
from diagnostics.stability import measure_stability
from diagnostics.statistics import SIGNIFICANCE
from diagnostics.variance import VarianceTest, compare_variances

Correct = Mapping[str, NDArray[np.bool_]]  # by model, (N,)
Rule = Literal["mean of probabilities", "majority vote"]

FOREIGN = "Its training images are not on record: these are the training images of this config."
BALANCED = "Its classifier was trained on balanced, held-out images: these are the others'."
CUED = "Training images carry the planted cue and these test images do not: the gap is of both."


def measure_claims(recording: Recording, correct: Correct, pairs: Sequence[Pair], seeds: OverSeeds) -> Claims:
    """Measure every claim that a recording has the models for."""
    classifiers = [model for model in recording.models if model.name in correct]
    variances = _compare_all_variances(classifiers, correct)
    return Claims(
        ensembles=_measure_ensembles(classifiers, recording, correct),
        generalisation={model.name: measure_model_gap(model, recording) for model in classifiers},
        variances=variances,
        stability={model.name: measure_stability(model.meta.history) for model in classifiers},
        sentences=[*describe_depth(recording, pairs, seeds), *(row.sentence for row in variances)],
    )


def _measure_ensembles(
    classifiers: Sequence[RecordedModel], recording: Recording, correct: Correct
) -> list[Ensemble]:
    found = []
    for members in _group_members(classifiers):
        logits = [model.logits for model in members]
        names = [model.name for model in members]
        answers: dict[Rule, NDArray[np.int64]] = {
            "mean of probabilities": np.asarray(average_probabilities(logits).argmax(axis=1))
        }
        if len(members) >= MIN_VOTERS:
            answers["majority vote"] = take_majority_vote(logits)
        for rule, answer in answers.items():
            found.append(_measure_ensemble(names, rule, answer == recording.labels, correct))
    gains = apply_holm([row.gain for row in found])
    return [replace(row, gain=gain) for row, gain in zip(found, gains, strict=True)]


def _group_members(classifiers: Sequence[RecordedModel]) -> Iterator[list[RecordedModel]]:
    """Yield teacher with each student, seeds of a method, methods of a seed."""
    teacher = next((model for model in classifiers if model.meta.method == "teacher"), None)
    students = [model for model in classifiers if model is not teacher]
    first = [model for model in students if model.meta.detailed]
    if teacher is not None:
        for student in first:
            yield [teacher, student]
    for method in dict.fromkeys(model.meta.method for model in students):
        own = [model for model in students if model.meta.method == method]
        if len(own) > 1:
            yield own
    if len(first) > 1:
        yield first


def _measure_ensemble(names: Sequence[str], rule: Rule, right: NDArray[np.bool_], correct: Correct) -> Ensemble:
    best = max(names, key=lambda name: float(correct[name].mean()))  # the first of several that are equal
    low, high = compute_wilson_interval(int(right.sum()), len(right))
    title = f"{'+'.join(names)} ({rule.partition(' ')[0]})"
    gain = compare_two(best, correct[best], title, right)
    return Ensemble(list(names), rule, float(right.mean()), low, high, gain)


def measure_model_gap(model: RecordedModel, recording: Recording) -> Gap:
    """Compare a model on training images with the same on test images."""
    found = measure_gap(model.train_logits, recording.probe_labels, model.logits, recording.labels)
    trainings = model.meta.trainings
    cue = get_section(recording.context.config, "shortcut").get("cue", "none")
    remark = "" if cue in ("none", "file") else CUED
    if model.meta.detailed and trainings is None:
        remark = FOREIGN
    elif trainings and trainings[-1].balanced:
        remark = BALANCED
    return replace(found, notes={"train_top1": remark, **found.notes}) if remark else found


def _compare_all_variances(classifiers: Sequence[RecordedModel], correct: Correct) -> list[VariancesCompared]:
    """Compare the main method's spread over seeds with each other's."""
    top1: dict[str, list[float]] = {}
    for model in classifiers:
        if model.meta.seed is not None:
            top1.setdefault(model.meta.method, []).append(float(correct[model.name].mean()))
    several = {method: values for method, values in top1.items() if len(values) > 1}
    main = choose_main(list(top1)) if top1 else None
    if main not in several:
        return []
    others = [method for method in several if method != main]
    results = [compare_variances(several[method], several[main]) for method in others]
    adjusted = apply_holm_correction([result.p for result in results])
    return [
        VariancesCompared(method, main, result, _describe_spread(method, main, result, p), p)
        for method, result, p in zip(others, results, adjusted, strict=True)
    ]


def _describe_spread(a: str, b: str, result: VarianceTest, holm_p: float | None) -> str:
    """Describe two spreads over seeds by Holm's p."""
    shown = [f"{format_number(100 * sd, 2)} points" if sd else "no spread" for sd in (result.sd_a, result.sd_b)]
    if result.ratio is None:
        return f"spread over seeds of {b} and {a} not compared: {result.notes['ratio']}"
    sizes = f"sd {shown[1]} and {shown[0]}, ratio {format_number(result.ratio, 2)}"
    if holm_p is None:
        reason = result.notes["statistic"].rstrip(".")
        return f"no difference shown in spread over seeds of {b} and {a}: {sizes}, not tested. {reason}"
    p = f"{format_p(holm_p)} by Holm"
    if holm_p >= SIGNIFICANCE:
        return f"no difference shown in spread over seeds of {b} and {a}: {sizes}, {p}"
    side = "more" if result.ratio > 1 else "less"
    return f"{b} varies {side} over seeds than {a}: {sizes}, {p} (Brown-Forsythe)"


def describe_depth(recording: Recording, pairs: Sequence[Pair], seeds: OverSeeds) -> list[str]:
    """Compare methods that differ in what their last stage trains alone."""
    methods = get_section(recording.context.config, "methods")
    main, lines = find_staged(methods), []
    if main is None:
        return []
    for name, stages in methods.items():
        last = f"stage{len(methods[main])}"
        own, other = (get_section(one, last).get("train") for one in (methods[main], stages))
        if other in (None, own) or {**stages, last: {**stages[last], "train": own}} != methods[main]:
            continue
        # over seeds where there are several, otherwise on these images
        found = [row.sentence for row in seeds.comparisons if {row.a, row.b} == {name, main}]
        found += [row.sentence for row in pairs if {row.a, row.b} == {name, main}]
        lines += [f"train: {own} in {main}, {other} in {name}: {sentence}" for sentence in found[:1]]
    return lines
