"""From recordings to every number of the report: one function a section, no network and no image needed.

Letters: N test images, C classes, D channels.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from CKA import MinibatchCKA, linear_cka, rbf_cka_with_each
from CKA.biased import compute_biased_linear_cka
from dataset.corruptions import DEGRADATIONS
from dataset.views.augment import generator
from diagnostics.calibration import calibration
from diagnostics.confusion import by_class, most_confused
from diagnostics.cost import ratio_to
from diagnostics.differing import differing
from diagnostics.evaluation.budget_parity import given
from diagnostics.evaluation.claims import claims
from diagnostics.evaluation.pairs import accuracy, adjust, compare_seeds, compare_two, right
from diagnostics.evaluation.recording import RecordedModel, Recording, first_classifiers
from diagnostics.evaluation.results import (
    SCHEMA_VERSION,
    ContrastiveBound,
    Faithfulness,
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
    Shape,
    TapSimilarity,
)
from diagnostics.fidelity import fidelity
from diagnostics.geometry import geometry, linear_probe, tsne
from diagnostics.names import find_staged, focus
from diagnostics.plain import section
from diagnostics.robustness import mean_corruption_error
from diagnostics.seeds import summarise_shares
from estimator import MutualInformation, label_information, mutual_information, nce_lower_bound

MINIBATCH = 256  # samples of a batch of minibatch CKA
LOST_MOST = 10  # classes named as having lost most

Tap = Literal["penultimate", "last"]


def analyse(recording: Recording) -> Report:
    """Return every number of the report."""
    models = recording.models
    teacher = next((model for model in models if model.meta.method == "teacher"), None)
    compared = [model for model in models if model is not teacher and model.meta.detailed]
    correct = {model.name: right(model, recording) for model in models if model.meta.classifies}
    classifiers = [model for model in models if model.name in correct]
    first = first_classifiers(models)
    students = [one.name for one in first if one.method != "teacher"]
    main = focus(students) if students else None
    pairs, seeds = paired(classifiers, correct), over_seeds(models, correct)
    curves = {model.name: model.meta.history for model in models}
    for model in models:
        curves |= model.meta.earlier
    return Report(
        schema_version=SCHEMA_VERSION,
        context=recording.context,
        images=len(recording.labels),
        main=main,
        models=[accuracy(model, correct[model.name]) for model in classifiers],
        given=given([model.meta for model in models if model.meta.detailed], main),
        pairs=pairs,
        seeds=seeds,
        calibration={model.name: calibration(model.logits, recording.labels) for model in classifiers},
        geometry={model.name: shape(model, recording) for model in models if model.meta.detailed},
        information=information(models, teacher, recording),
        cost=costs(models, teacher),
        curves=curves,
        fidelity=None
        if teacher is None
        else {model.name: faithful(teacher, model, recording) for model in classifiers if model is not teacher},
        representation=None if teacher is None else similarities(teacher, compared),
        robustness=robustness(models, teacher, recording),
        claims=claims(recording, correct, pairs, seeds),
        sentences=sentences(pairs, seeds, main),
        classes=by_class(first, recording.labels, recording.context.classes),
        confusions=most_confused(first, recording.labels, recording.context.classes),
        differing=differing(first, recording.labels, recording.context.classes, recording.names),
    )


def paired(classifiers: Sequence[RecordedModel], correct: dict[str, NDArray[np.bool_]]) -> list[Pair]:
    """The paired statistics of every two models that share a seed, or of which one is the teacher."""
    rows = []
    for first, second in itertools.combinations(classifiers, 2):
        seeds = {first.meta.seed, second.meta.seed} - {None}
        if len(seeds) < 2:
            rows.append(compare_two(first.name, correct[first.name], second.name, correct[second.name]))
    return adjust(rows)


def over_seeds(models: Sequence[RecordedModel], correct: dict[str, NDArray[np.bool_]]) -> OverSeeds:
    """Return mean, deviation and interval of each student method, and the main one against each other one."""
    top1: dict[str, dict[int, float]] = {}
    for model in models:
        if model.meta.seed is not None and model.name in correct:
            top1.setdefault(model.meta.method, {})[model.meta.seed] = float(correct[model.name].mean())
    main = focus(list(top1)) if top1 else ""
    found = [compare_seeds(method, main, top1[method], top1[main]) for method in top1 if method != main]
    comparisons = [comparison for comparison in found if comparison is not None]
    summaries = {
        method: MethodOverSeeds(sorted(values), summarise_shares([values[seed] for seed in sorted(values)]))
        for method, values in top1.items()
    }
    return OverSeeds(summaries, comparisons)


def faithful(teacher: RecordedModel, student: RecordedModel, recording: Recording) -> Faithfulness:
    """How faithfully a student reproduces its teacher, and the classes it lost most."""
    result = fidelity(teacher.logits, student.logits, recording.labels)
    names = recording.context.classes
    lost = [
        LostClass(names[number], change)
        for number in result.classes_that_lost_most(LOST_MOST)
        if (change := result.accuracy_change[number]) is not None
    ]
    return Faithfulness(result, lost)


def similarities(teacher: RecordedModel, students: Sequence[RecordedModel]) -> dict[str, Representation]:
    """Of each student: CKA of both taps on all images, exact and by minibatches, layers, stage 1's cosine."""
    penultimate, last = (tap_similarities(teacher, students, tap) for tap in ("penultimate", "last"))
    return {
        student.name: Representation(first, second, layer_matrix(teacher, student))
        for student, first, second in zip(students, penultimate, last, strict=True)
    }


def tap_similarities(teacher: RecordedModel, students: Sequence[RecordedModel], tap: Tap) -> list[TapSimilarity]:
    """One tap of the teacher beside that of each student."""
    X, *others = (torch.from_numpy(getattr(model, tap)) for model in (teacher, *students))  # (N, D) each
    minibatches = [MinibatchCKA() for _ in others]
    for rows in _minibatches(len(X)):
        for matrix, Y in zip(minibatches, others, strict=True):
            matrix.update([X[rows]], [Y[rows]])
    rbf = rbf_cka_with_each(X, others)
    linear = [linear_cka(X, Y) for Y in others]
    batched = [matrix.value().values[0][0] for matrix in minibatches]
    cosines = [projected_cosine(teacher, student, tap) for student in students]
    biased = [compute_biased_linear_cka(X, Y) for Y in others]
    return [TapSimilarity(*row) for row in zip(linear, rbf, batched, cosines, biased, strict=True)]


def layer_matrix(teacher: RecordedModel, student: RecordedModel) -> LayerMatrix:
    """Minibatch linear CKA of every teacher layer (rows) with every student layer (columns)."""
    matrix = MinibatchCKA()
    rows = [torch.from_numpy(layer) for layer in teacher.layer_features()]  # (M, D) each
    columns = [torch.from_numpy(layer) for layer in student.layer_features()]
    for chosen in _minibatches(len(rows[0])):
        matrix.update([layer[chosen] for layer in rows], [layer[chosen] for layer in columns])
    return LayerMatrix(teacher.meta.layers, student.meta.layers, matrix.value())


def _minibatches(count: int) -> tuple[torch.Tensor, ...]:
    """Positions in random batches: test images often stand by class, and a batch of few classes is no sample."""
    batches: tuple[torch.Tensor, ...] = torch.randperm(count, generator=generator(0)).split(MINIBATCH)
    return batches


def projected(
    teacher: RecordedModel, student: RecordedModel, tap: Tap
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """A tap of student and teacher behind stage 1's projections, (N, D) each; None for a model that has none."""
    sides = []
    for side, model in (("student", student), ("teacher", teacher)):
        weight = student.projections.get(f"{tap}.{side}.weight")
        bias = student.projections.get(f"{tap}.{side}.bias")
        if weight is None or bias is None:
            return None
        features = torch.from_numpy(getattr(model, tap)).float()
        sides.append(F.linear(features, torch.from_numpy(weight), torch.from_numpy(bias)))
    return sides[0], sides[1]


def projected_cosine(teacher: RecordedModel, student: RecordedModel, tap: Tap) -> float | None:
    """Mean cosine of the pairs behind stage 1's projections of a tap; None for a model that has none."""
    pair = projected(teacher, student, tap)
    return None if pair is None else F.cosine_similarity(*pair).mean().item()


def shape(model: RecordedModel, recording: Recording) -> Shape:
    """Geometry of the last tap's features and what a linear probe reads from them."""
    features = model.last.astype(np.float32)
    probe = linear_probe(model.probe.astype(np.float32), recording.probe_labels, features, recording.labels)
    return Shape(geometry(features, recording.labels), probe)


def embeddings(recording: Recording, main: str | None) -> dict[str, NDArray[np.float64]]:
    """Return t-SNE maps (M, 2) of teacher, stage 1 and `main`, on the sample of the layer comparison."""
    methods = ("teacher", "stage1", main)
    chosen = [model for model in recording.models if model.meta.method in methods and model.meta.detailed]
    return {model.name: tsne(model.last[recording.layer_indices].astype(np.float32)) for model in chosen}


def information(
    models: Sequence[RecordedModel], teacher: RecordedModel | None, recording: Recording
) -> Information:
    """What last taps tell about the label and about the teacher's."""
    thorough = [model for model in models if model.meta.detailed]
    labels = {model.name: information_on_labels(model, recording) for model in thorough}
    if teacher is None:
        return Information(labels, None, None)
    compared = [model for model in thorough if model is not teacher]
    shared = {student.name: information_on_teacher(teacher, student, recording) for student in compared}
    bounds = {student.name: contrastive_bound(teacher, student, recording) for student in compared}
    return Information(labels, shared, {name: bound for name, bound in bounds.items() if bound is not None})


def information_on_labels(model: RecordedModel, recording: Recording) -> MutualInformation:
    """Mutual information of the last tap with the label, on the sample of the layer comparison."""
    rows = recording.layer_indices
    return label_information(model.last[rows].astype(np.float64), recording.labels[rows])


def information_on_teacher(
    teacher: RecordedModel, student: RecordedModel, recording: Recording
) -> MutualInformation:
    """Mutual information of the two networks' last taps, on the same sample."""
    rows = recording.layer_indices
    return mutual_information(teacher.last[rows].astype(np.float64), student.last[rows].astype(np.float64))


def contrastive_bound(
    teacher: RecordedModel, student: RecordedModel, recording: Recording
) -> ContrastiveBound | None:
    """Return log K − L of stage 1's projections of the last tap, on test images: the mean of both directions.

    Negatives are all other images of a random batch, so it is a lower bound whatever stage 1 was trained with.
    None for another model than stage 1's, one that was trained without crd, or without a whole batch of images.
    """
    pair = projected(teacher, student, "last")
    batches = [rows for rows in _minibatches(len(recording.labels)) if len(rows) == MINIBATCH]
    temperature = _crd_of_stage1(recording.context.config).get("temperature")
    if student.meta.method != "stage1" or pair is None or not batches or temperature is None:
        return None
    losses = []
    for rows in batches:
        own, other = (F.normalize(side[rows], dim=1) for side in pair)  # (K + 1, D) each
        scores = own @ other.T / temperature
        target = torch.arange(len(rows))
        losses += [F.cross_entropy(scores, target).item(), F.cross_entropy(scores.T, target).item()]
    loss = float(np.mean(losses))
    return ContrastiveBound(nce_lower_bound(loss, MINIBATCH - 1), loss, MINIBATCH - 1)


def _crd_of_stage1(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the options of crd in the first stage of the main staged method; empty without crd."""
    methods = section(config, "methods")
    stage = section(section(methods, find_staged(methods) or ""), "stage1")
    return section(section(stage, "losses"), "crd")


def robustness(models: Sequence[RecordedModel], teacher: RecordedModel | None, recording: Recording) -> Robustness:
    """Error rates under each corruption and severity, and the mean corruption error relative to the teacher."""
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
    relative = {name: mean_corruption_error(errors, rates[teacher.name]) for name, errors in rates.items()}
    return Robustness(rates, relative, len(labels))


def costs(models: Sequence[RecordedModel], teacher: RecordedModel | None) -> dict[str, RelativeCost]:
    """What each model costs and its ratio to the teacher's."""
    measured = {m.name: m.meta.cost for m in models if m.meta.cost is not None and m.meta.classifies}
    reference = measured.get(teacher.name) if teacher is not None else None
    return {
        name: RelativeCost(cost, None if reference is None else ratio_to(cost, reference))
        for name, cost in measured.items()
    }


def sentences(pairs: Sequence[Pair], seeds: OverSeeds, main: str | None) -> list[str]:
    """Return the answers in plain words: over seeds where there are several, otherwise `main` on these images."""
    if seeds.comparisons:
        return [row.sentence for row in seeds.comparisons]
    about = [pair.sentence for pair in pairs if main in (pair.a, pair.b)]
    return about or [pair.sentence for pair in pairs]
