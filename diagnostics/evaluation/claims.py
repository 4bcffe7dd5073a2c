"""What the paper claims of its students, from a recording: ensembles, gaps, spread over seeds, steadiness, depth.

Letters: N test images, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from diagnostics.comparison import holm, wilson_interval
from diagnostics.ensembles import LEAST_VOTERS, majority_vote, mean_probabilities
from diagnostics.evaluation.pairs import compare_two
from diagnostics.evaluation.recording import RecordedModel, Recording
from diagnostics.evaluation.results import Claims, Ensemble, OverSeeds, Pair, VariancesCompared
from diagnostics.generalisation import Gap, generalisation_gap
from diagnostics.names import find_staged, focus
from diagnostics.plain import section
from diagnostics.seeds import plain_number
from diagnostics.stability import stability
from diagnostics.statistics import SIGNIFICANCE
from diagnostics.variance import MOST_SEEDS, VarianceTest, compare_variances

Correct = Mapping[str, NDArray[np.bool_]]  # by model, (N,)
Rule = Literal["mean of probabilities", "majority vote"]

FOREIGN = "What it was trained on is not on record: these are the training images of this config."
BALANCED = "Its classifier was trained on balanced, held-out images: these are the others'."
CUED = "Training images carry the planted cue and these test images do not: the gap is of both."


def claims(recording: Recording, correct: Correct, pairs: Sequence[Pair], seeds: OverSeeds) -> Claims:
    """Return every claim that a recording has the models for."""
    classifiers = [model for model in recording.models if model.name in correct]
    tested = variances(classifiers, correct)
    return Claims(
        ensembles=ensembles(classifiers, recording, correct),
        generalisation={model.name: gap(model, recording) for model in classifiers},
        variances=tested,
        stability={model.name: stability(model.meta.history) for model in classifiers},
        sentences=[*depth_sentences(recording, pairs, seeds), *(row.sentence for row in tested)],
    )


def ensembles(classifiers: Sequence[RecordedModel], recording: Recording, correct: Correct) -> list[Ensemble]:
    """Teacher and each student of the first seed, the seeds of each method, and the methods of the first seed."""
    found = []
    for members in _groups(classifiers):
        logits = [model.logits for model in members]
        names = [model.name for model in members]
        answers: dict[Rule, NDArray[np.int64]] = {
            "mean of probabilities": np.asarray(mean_probabilities(logits).argmax(axis=1))
        }
        if len(members) >= LEAST_VOTERS:
            answers["majority vote"] = majority_vote(logits)
        for rule, answer in answers.items():
            found.append(_ensemble(names, rule, answer == recording.labels, correct))
    adjusted = holm([row.gain.quoted_log10_p for row in found], log10=True)
    return [
        replace(row, gain=replace(row.gain, holm_log10_p=value))
        for row, value in zip(found, adjusted, strict=True)
    ]


def _groups(classifiers: Sequence[RecordedModel]) -> Iterator[list[RecordedModel]]:
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


def _ensemble(names: Sequence[str], rule: Rule, right: NDArray[np.bool_], correct: Correct) -> Ensemble:
    best = max(names, key=lambda name: float(correct[name].mean()))  # the first of several that are equal
    low, high = wilson_interval(int(right.sum()), len(right))
    title = f"{'+'.join(names)} ({rule.partition(' ')[0]})"
    gain = compare_two(best, correct[best], title, right)
    return Ensemble(list(names), rule, float(right.mean()), low, high, gain)


def gap(model: RecordedModel, recording: Recording) -> Gap:
    """A model on training images as they are, without augmentation, and on the test images."""
    found = generalisation_gap(model.train_logits, recording.probe_labels, model.logits, recording.labels)
    trainings = model.meta.trainings
    remark = CUED if _planted(recording.context.config) else ""
    if model.meta.detailed and trainings is None:
        remark = FOREIGN
    elif trainings and trainings[-1].balanced:
        remark = BALANCED
    return replace(found, notes={"train_top1": remark, **found.notes}) if remark else found


def _planted(config: Mapping[str, Any]) -> bool:
    return section(config, "shortcut").get("cue", "none") not in ("none", "file")


def variances(classifiers: Sequence[RecordedModel], correct: Correct) -> list[VariancesCompared]:
    """Compare the spread over seeds of the method in question with each other's, where both have two or more."""
    top1: dict[str, list[float]] = {}
    for model in classifiers:
        if model.meta.seed is not None:
            top1.setdefault(model.meta.method, []).append(float(correct[model.name].mean()))
    several = {method: values for method, values in top1.items() if len(values) > 1}
    main = focus(list(top1)) if top1 else None
    if main not in several:
        return []
    rows = []
    for method in several:
        if method != main:
            result = compare_variances(several[method], several[main])
            rows.append(VariancesCompared(method, main, result, _spread(method, main, result)))
    adjusted = holm([row.result.p for row in rows])
    return [replace(row, holm_p=p) for row, p in zip(rows, adjusted, strict=True)]


def _spread(a: str, b: str, result: VarianceTest) -> str:
    """One plain sentence on two spreads over seeds; the test's own p decides, without Holm's correction."""
    shown = [f"{plain_number(100 * sd, 2)} points" if sd else "no spread" for sd in (result.sd_a, result.sd_b)]
    if result.ratio is None:
        return f"spread over seeds of {b} and {a} not compared: {result.notes['ratio']}"
    seeds = result.seeds_for_ratio
    need = (
        f"it would take {f'about {seeds}' if seeds else f'more than {MOST_SEEDS}'} seeds of each to see this ratio"
    )
    sizes = f"sd {shown[1]} and {shown[0]}, ratio {plain_number(result.ratio, 2)}"
    if result.p is None:
        return f"no difference shown in spread over seeds of {b} and {a}: {sizes}, too few seeds to test; {need}"
    p = "p < 0.001" if result.p < 0.001 else f"p = {plain_number(result.p, 3)}"
    if result.p >= SIGNIFICANCE:
        return f"no difference shown in spread over seeds of {b} and {a}: {sizes}, {p}; {need}"
    side = "more" if result.ratio > 1 else "less"
    return f"{b} varies {side} over seeds than {a}: {sizes}, {p} (Brown-Forsythe)"


def depth_sentences(recording: Recording, pairs: Sequence[Pair], seeds: OverSeeds) -> list[str]:
    """Compare frozen with fine-tuned features: methods that differ in what their last stage trains alone."""
    methods = section(recording.context.config, "methods")
    main, lines = find_staged(methods), []
    if main is None:
        return []
    for name, stages in methods.items():
        last = f"stage{len(methods[main])}"
        own, other = (section(one, last).get("train") for one in (methods[main], stages))
        if other in (None, own) or {**stages, last: {**stages[last], "train": own}} != methods[main]:
            continue
        told = _of_two(name, main, pairs, seeds)
        if told is not None:
            lines.append(f"train: {own} in {main}, {other} in {name}: {told}")
    return lines


def _of_two(a: str, b: str, pairs: Sequence[Pair], seeds: OverSeeds) -> str | None:
    """Return what is said of two methods: over seeds where there are several, otherwise on these images."""
    over = [row.sentence for row in seeds.comparisons if {row.a, row.b} == {a, b}]
    on_images = [row.sentence for row in pairs if {row.a, row.b} == {a, b}]
    return next(iter([*over, *on_images]), None)
