"""Compute every number of the report from a recording, one function a section.

Letters: N test images, M images of the layer sample, C classes, D channels.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from CKA import MinibatchCKA, compute_linear_cka, compute_rbf_cka_with_each
from CKA.biased import compute_biased_linear_cka
from dataset.corruptions import DEGRADATIONS
from dataset.views.augment import make_generator
from diagnostics.calibration import measure_calibration
from diagnostics.confusion import find_confusions, measure_classes
from diagnostics.cost import compute_cost_ratio
from diagnostics.differing import find_differing
from diagnostics.evaluation.budget_parity import compare_budgets
from diagnostics.evaluation.claims import measure_claims
from diagnostics.evaluation.pairs import apply_holm, compare_seeds, compare_two, find_correct, measure_accuracy
from diagnostics.evaluation.recording import RecordedModel, Recording, list_first_classifiers
from diagnostics.evaluation.results import (
    SCHEMA_VERSION,
    ContrastiveBound,
    Faithfulness,
    FeatureShape,
    Information,
    LayerMatrix,
    LostClass,
    MethodOverSeeds,
    OverSeeds,
    Pair,
    RelativeCost,
    Report,
    Representation,
    Robustness,
    TapSimilarity,
)
from diagnostics.fidelity import measure_fidelity
from diagnostics.geometry import fit_linear_probe, map_by_tsne, measure_geometry
from diagnostics.names import choose_main, find_staged
from diagnostics.plain import get_section
from diagnostics.robustness import compute_mean_corruption_error
from diagnostics.seeds import summarise_shares
from estimator import (
    MutualInformation,
    compute_nce_bound,
    estimate_label_information,
    estimate_mutual_information,
)

MINIBATCH = 256  # samples of a batch of minibatch CKA
LOST_MOST = 10  # classes that are listed as having lost most accuracy

Tap = Literal["penultimate", "last"]


def compute_report(recording: Recording) -> Report:
    """Compute every number of the report."""
    models, labels, classes = recording.models, recording.labels, recording.context.classes
    teacher = next((model for model in models if model.meta.method == "teacher"), None)
    detailed = [model for model in models if model.meta.detailed]
    students = [model for model in detailed if model is not teacher]
    correct = {model.name: find_correct(model, recording) for model in models if model.meta.classifies}
    classifiers = [model for model in models if model.name in correct]
    first = list_first_classifiers(models)
    candidates = [one.name for one in first if one.method != "teacher"]
    main = choose_main(candidates) if candidates else None
    pairs, seeds = compare_pairs(classifiers, correct), compare_methods(models, correct)
    curves = {model.name: model.meta.history for model in models}
    for model in models:
        curves |= model.meta.earlier
    return Report(
        schema_version=SCHEMA_VERSION,
        context=recording.context,
        images=len(labels),
        main=main,
        models=[measure_accuracy(model, correct[model.name]) for model in classifiers],
        given=compare_budgets([model.meta for model in detailed], main),
        pairs=pairs,
        seeds=seeds,
        calibration={model.name: measure_calibration(model.logits, labels) for model in classifiers},
        geometry={model.name: measure_shape(model, recording) for model in detailed},
        information=_measure_information(detailed, teacher, recording),
        cost=_compare_costs(models, teacher),
        curves=curves,
        fidelity=None
        if teacher is None
        else {
            model.name: _compare_with_teacher(teacher, model, recording)
            for model in classifiers
            if model is not teacher
        },
        representation=None if teacher is None else compare_features(teacher, students),
        robustness=_measure_robustness(models, teacher, recording),
        claims=measure_claims(recording, correct, pairs, seeds),
        sentences=_choose_sentences(pairs, seeds, main),
        classes=measure_classes(first, labels, classes),
        confusions=find_confusions(first, labels, classes),
        differing=find_differing(first, labels, classes, recording.names),
    )


def compare_pairs(classifiers: Sequence[RecordedModel], correct: dict[str, NDArray[np.bool_]]) -> list[Pair]:
    """Compare any two models that share a seed, and each model with the teacher."""
    rows = []
    for first, second in itertools.combinations(classifiers, 2):
        if len({first.meta.seed, second.meta.seed} - {None}) < 2:
            rows.append(compare_two(first.name, correct[first.name], second.name, correct[second.name]))
    return apply_holm(rows)


def compare_methods(models: Sequence[RecordedModel], correct: dict[str, NDArray[np.bool_]]) -> OverSeeds:
    """Summarise each student method over seeds, and compare the main one."""
    top1: dict[str, dict[int, float]] = {}
    for model in models:
        if model.meta.seed is not None and model.name in correct:
            top1.setdefault(model.meta.method, {})[model.meta.seed] = float(correct[model.name].mean())
    main = choose_main(list(top1)) if top1 else ""
    found = [compare_seeds(method, main, top1[method], top1[main]) for method in top1 if method != main]
    comparisons = [comparison for comparison in found if comparison is not None]
    summaries = {
        method: MethodOverSeeds(sorted(values), summarise_shares([values[seed] for seed in sorted(values)]))
        for method, values in top1.items()
    }
    return OverSeeds(summaries, comparisons)


def _compare_with_teacher(teacher: RecordedModel, student: RecordedModel, recording: Recording) -> Faithfulness:
    result = measure_fidelity(teacher.logits, student.logits, recording.labels)
    names = recording.context.classes
    lost = [
        LostClass(names[number], change)
        for number in result.list_lost_most(LOST_MOST)
        if (change := result.accuracy_change[number]) is not None
    ]
    return Faithfulness(result, lost)


def compare_features(teacher: RecordedModel, students: Sequence[RecordedModel]) -> dict[str, Representation]:
    """Compare each student's features with the teacher's: taps and layers."""
    penultimate, last = (_compare_taps(teacher, students, tap) for tap in ("penultimate", "last"))
    return {
        student.name: Representation(first, second, _compare_layers(teacher, student))
        for student, first, second in zip(students, penultimate, last, strict=True)
    }


def _compare_taps(teacher: RecordedModel, students: Sequence[RecordedModel], tap: Tap) -> list[TapSimilarity]:
    X, *others = (torch.from_numpy(getattr(model, tap)) for model in (teacher, *students))  # (N, D) each
    minibatches = [MinibatchCKA() for _ in others]
    for rows in _draw_minibatches(len(X)):
        for matrix, Y in zip(minibatches, others, strict=True):
            matrix.update([X[rows]], [Y[rows]])
    rbf = compute_rbf_cka_with_each(X, others)
    linear = [compute_linear_cka(X, Y) for Y in others]
    batched = [matrix.compute().values[0][0] for matrix in minibatches]
    cosines = []
    for student in students:
        pair = _project(teacher, student, tap)
        cosines.append(None if pair is None else F.cosine_similarity(*pair).mean().item())
    biased = [compute_biased_linear_cka(X, Y) for Y in others]
    return [TapSimilarity(*row) for row in zip(linear, rbf, batched, cosines, biased, strict=True)]


def _compare_layers(teacher: RecordedModel, student: RecordedModel) -> LayerMatrix:
    """Compute minibatch CKA of teacher layers (rows) and student layers."""
    matrix = MinibatchCKA()
    rows = [torch.from_numpy(layer) for layer in teacher.split_layers()]  # (M, D) each
    columns = [torch.from_numpy(layer) for layer in student.split_layers()]
    for chosen in _draw_minibatches(len(rows[0])):
        matrix.update([layer[chosen] for layer in rows], [layer[chosen] for layer in columns])
    return LayerMatrix(teacher.meta.layers, student.meta.layers, matrix.compute())


def _draw_minibatches(count: int) -> tuple[torch.Tensor, ...]:
    """Draw random batches of positions, because test images are often sorted by class."""
    batches: tuple[torch.Tensor, ...] = torch.randperm(count, generator=make_generator(0)).split(MINIBATCH)
    return batches


def _project(teacher: RecordedModel, student: RecordedModel, tap: Tap) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return a projected tap of student and teacher, (N, D) each, or None."""
    sides = []
    for side, model in (("student", student), ("teacher", teacher)):
        weight = student.projections.get(f"{tap}.{side}.weight")
        bias = student.projections.get(f"{tap}.{side}.bias")
        if weight is None or bias is None:
            return None
        features = torch.from_numpy(getattr(model, tap)).float()
        sides.append(F.linear(features, torch.from_numpy(weight), torch.from_numpy(bias)))
    return sides[0], sides[1]


def measure_shape(model: RecordedModel, recording: Recording) -> FeatureShape:
    """Measure the last tap's geometry, and what a linear probe reads from it."""
    features = model.last.astype(np.float32)
    probe = fit_linear_probe(model.probe.astype(np.float32), recording.probe_labels, features, recording.labels)
    return FeatureShape(measure_geometry(features, recording.labels), probe)


def map_features(recording: Recording, main: str | None) -> dict[str, NDArray[np.float64]]:
    """Map the last tap of teacher, stage 1 and `main` to points (M, 2) by t-SNE."""
    methods = ("teacher", "stage1", main)
    chosen = [model for model in recording.models if model.meta.method in methods and model.meta.detailed]
    return {model.name: map_by_tsne(model.last[recording.layer_indices].astype(np.float32)) for model in chosen}


def _measure_information(
    models: Sequence[RecordedModel], teacher: RecordedModel | None, recording: Recording
) -> Information:
    """Estimate information of last taps on the label and on the teacher's last tap."""
    labels = {model.name: estimate_information_on_labels(model, recording) for model in models}
    if teacher is None:
        return Information(labels, None, None)
    students = [model for model in models if model is not teacher]
    shared = {student.name: estimate_information_on_teacher(teacher, student, recording) for student in students}
    bounds = {student.name: compute_contrastive_bound(teacher, student, recording) for student in students}
    return Information(labels, shared, {name: bound for name, bound in bounds.items() if bound is not None})


def estimate_information_on_labels(model: RecordedModel, recording: Recording) -> MutualInformation:
    """Estimate information of the last tap on the label, on the layer sample."""
    rows = recording.layer_indices
    return estimate_label_information(model.last[rows].astype(np.float64), recording.labels[rows])


def estimate_information_on_teacher(
    teacher: RecordedModel, student: RecordedModel, recording: Recording
) -> MutualInformation:
    """Estimate information of two last taps, on the layer sample."""
    rows = recording.layer_indices
    return estimate_mutual_information(
        teacher.last[rows].astype(np.float64), student.last[rows].astype(np.float64)
    )


def compute_contrastive_bound(
    teacher: RecordedModel, student: RecordedModel, recording: Recording
) -> ContrastiveBound | None:
    """Compute log K − L of stage 1's projections on test images, both ways.

    Negatives are all other images of a random batch, so it is a lower bound for any loss of stage 1. Returns None
    unless the model is stage 1's, was trained by crd, and the test images fill a batch.
    """
    pair = _project(teacher, student, "last")
    batches = [rows for rows in _draw_minibatches(len(recording.labels)) if len(rows) == MINIBATCH]
    methods = get_section(recording.context.config, "methods")
    stage = get_section(get_section(methods, find_staged(methods) or ""), "stage1")
    temperature = get_section(get_section(stage, "losses"), "crd").get("temperature")
    if student.meta.method != "stage1" or pair is None or not batches or temperature is None:
        return None
    losses = []
    for rows in batches:
        own, other = (F.normalize(side[rows], dim=1) for side in pair)  # (K + 1, D) each
        scores = own @ other.T / temperature
        target = torch.arange(len(rows))
        losses += [
            F.cross_entropy(scores, target).item(),
            F.cross_entropy(scores.T, target).item(),
        ]
    loss = float(np.mean(losses))
    return ContrastiveBound(compute_nce_bound(loss, MINIBATCH - 1), loss, MINIBATCH - 1)


def _measure_robustness(
    models: Sequence[RecordedModel], teacher: RecordedModel | None, recording: Recording
) -> Robustness:
    """Measure errors by corruption and severity, and relative to the teacher."""
    labels = recording.labels[recording.corrupted_indices]
    rates = {
        model.name: {
            name: [float((row != labels).mean()) for row in predicted]
            for name, predicted in zip(DEGRADATIONS, model.corrupted, strict=True)
        }
        for model in models
        if model.corrupted.size and model.meta.classifies
    }
    if teacher is None or teacher.name not in rates:
        return Robustness(rates, {}, len(labels))
    relative = {name: compute_mean_corruption_error(errors, rates[teacher.name]) for name, errors in rates.items()}
    return Robustness(rates, relative, len(labels))


def _compare_costs(models: Sequence[RecordedModel], teacher: RecordedModel | None) -> dict[str, RelativeCost]:
    measured = {m.name: m.meta.cost for m in models if m.meta.cost is not None and m.meta.classifies}
    reference = measured.get(teacher.name) if teacher is not None else None
    return {
        name: RelativeCost(cost, None if reference is None else compute_cost_ratio(cost, reference))
        for name, cost in measured.items()
    }


def _choose_sentences(pairs: Sequence[Pair], seeds: OverSeeds, main: str | None) -> list[str]:
    """Return sentences on differences: over seeds if there are several, else on images."""
    if seeds.comparisons:
        return [row.sentence for row in seeds.comparisons]
    own = [pair.sentence for pair in pairs if main in (pair.a, pair.b)]
    return own or [pair.sentence for pair in pairs]
