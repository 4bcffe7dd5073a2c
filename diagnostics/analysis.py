"""From recordings to every number of the report: one function a section, no network and no image needed.

Letters: N test images, C classes, D channels.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from CKA import MinibatchCKA, linear_cka, rbf_cka
from dataset.augment import generator
from diagnostics.calibration import calibration
from diagnostics.cost import Cost, Latency, ratio_to
from diagnostics.fidelity import fidelity
from diagnostics.geometry import geometry, linear_probe, tsne
from diagnostics.pairs import accuracy, adjust, compare_seeds, compare_two, right
from diagnostics.recording import Recording, Recordings
from diagnostics.robustness import CORRUPTIONS, mean_corruption_error
from diagnostics.seeds import summarise
from estimator import label_information, mutual_information, nce_lower_bound

MINIBATCH = 256  # samples of a batch of minibatch CKA
LOST_MOST = 10  # classes named as having lost most

Section = dict[str, Any]


def analyse(recordings: Recordings) -> Section:
    """Every number of the report as nested dicts and lists that JSON can hold."""
    models = recordings.models
    teacher = next((model for model in models if model.meta["method"] == "teacher"), None)
    students = [model for model in models if model is not teacher]
    correct = {model.name: right(model, recordings) for model in models if model.meta["classifies"]}
    classifiers = [model for model in models if model.name in correct]
    thorough = [model for model in models if model.meta["detailed"]]
    report: Section = {
        "context": recordings.context,
        "images": len(recordings.labels),
        "models": [accuracy(model, correct[model.name]) for model in classifiers],
        "pairs": paired(classifiers, correct),
        "seeds": over_seeds(models, correct),
        "calibration": {model.name: asdict(calibration(model.logits, recordings.labels)) for model in classifiers},
        "geometry": {model.name: shape(model, recordings) for model in thorough},
        "information": {"labels": {model.name: information_on_labels(model, recordings) for model in thorough}},
        "cost": costs(models, teacher),
        "curves": {model.name: model.meta["history"] for model in models},
    }
    if teacher is not None:
        compared = [model for model in students if model.meta["detailed"]]
        report["fidelity"] = {s.name: faithful(teacher, s, recordings) for s in students if s.name in correct}
        report["representation"] = {student.name: similarity(teacher, student) for student in compared}
        report["information"]["teacher"] = {
            s.name: information_on_teacher(teacher, s, recordings) for s in compared
        }
        bounds = {student.name: _nce_bound(student, recordings) for student in compared}
        report["information"]["nce_bound"] = {name: bound for name, bound in bounds.items() if bound is not None}
    report["robustness"] = robustness(models, teacher, recordings)
    report["sentences"] = sentences(report)
    return report


def paired(classifiers: Sequence[Recording], correct: dict[str, NDArray[np.bool_]]) -> list[Section]:
    """The paired statistics of every two models that share a seed, or of which one is the teacher."""
    rows = []
    for first, second in itertools.combinations(classifiers, 2):
        seeds = {first.meta["seed"], second.meta["seed"]} - {None}
        if len(seeds) < 2:
            rows.append(compare_two(first.name, correct[first.name], second.name, correct[second.name]))
    return adjust(rows)


def over_seeds(models: Sequence[Recording], correct: dict[str, NDArray[np.bool_]]) -> Section:
    """Mean, deviation and interval of each student method, and two-stage against each other one."""
    top1: dict[str, dict[int, float]] = {}
    for model in models:
        if model.meta["seed"] is not None and model.name in correct:
            top1.setdefault(model.meta["method"], {})[model.meta["seed"]] = float(correct[model.name].mean())
    others = [method for method in top1 if method != "two_stage"] if "two_stage" in top1 else []
    found = [compare_seeds(method, "two_stage", top1[method], top1["two_stage"]) for method in others]
    comparisons = [comparison for comparison in found if comparison is not None]
    summaries = {
        method: {"seeds": sorted(values), **asdict(summarise([values[seed] for seed in sorted(values)]))}
        for method, values in top1.items()
    }
    return {"methods": summaries, "comparisons": comparisons}


def faithful(teacher: Recording, student: Recording, recordings: Recordings) -> Section:
    """How faithfully a student reproduces its teacher, and the classes it lost most."""
    result = fidelity(teacher.logits, student.logits, recordings.labels)
    names = recordings.context["classes"]
    lost = [
        {"class": names[number], "change": result.accuracy_change[number]}
        for number in result.classes_that_lost_most(LOST_MOST)
    ]
    return {**asdict(result), "lost_most": lost}


def similarity(teacher: Recording, student: Recording) -> Section:
    """CKA of both taps on all images, exact and by minibatches, the layer matrix, and stage 1's cosine."""
    result: Section = {}
    for tap in ("penultimate", "last"):
        X, Y = torch.from_numpy(getattr(teacher, tap)), torch.from_numpy(getattr(student, tap))
        minibatch = MinibatchCKA()
        for rows in _minibatches(len(X)):
            minibatch.update([X[rows]], [Y[rows]])
        result[tap] = {
            "linear": asdict(linear_cka(X, Y)),
            "rbf": asdict(rbf_cka(X, Y)),
            "linear_minibatch": minibatch.value().values[0][0],
            "cosine": projected_cosine(teacher, student, tap),
        }
    result["layers"] = layer_matrix(teacher, student)
    return result


def layer_matrix(teacher: Recording, student: Recording) -> Section:
    """Minibatch linear CKA of every teacher layer (rows) with every student layer (columns)."""
    matrix = MinibatchCKA()
    rows = [torch.from_numpy(layer) for layer in teacher.layer_features()]
    columns = [torch.from_numpy(layer) for layer in student.layer_features()]
    for chosen in _minibatches(len(rows[0])):
        matrix.update([layer[chosen] for layer in rows], [layer[chosen] for layer in columns])
    return {"teacher": teacher.meta["layers"], "student": student.meta["layers"], **asdict(matrix.value())}


def _minibatches(count: int) -> tuple[torch.Tensor, ...]:
    """Positions in random batches: test images often stand by class, and a batch of few classes is no sample."""
    return torch.randperm(count, generator=generator(0)).split(MINIBATCH)


def projected_cosine(teacher: Recording, student: Recording, tap: str) -> float | None:
    """Mean cosine of the pairs behind stage 1's projections of a tap; None for a model that has none."""
    sides = {}
    for side, model in (("student", student), ("teacher", teacher)):
        weight = student.projections.get(f"losses.{tap}.project_{side}.weight")
        bias = student.projections.get(f"losses.{tap}.project_{side}.bias")
        if weight is None or bias is None:
            return None
        features = torch.from_numpy(getattr(model, tap)).float()
        sides[side] = F.linear(features, torch.from_numpy(weight), torch.from_numpy(bias))
    return F.cosine_similarity(sides["student"], sides["teacher"]).mean().item()


def shape(model: Recording, recordings: Recordings) -> Section:
    """Geometry of the last tap's features and what a linear probe reads from them."""
    features = model.last.astype(np.float32)
    probe = linear_probe(model.probe.astype(np.float32), recordings.probe_labels, features, recordings.labels)
    return {**asdict(geometry(features, recordings.labels)), "probe": asdict(probe)}


def embeddings(
    recordings: Recordings, methods: Sequence[str] = ("teacher", "stage1", "two_stage")
) -> dict[str, Any]:
    """t-SNE maps (M, 2) of the detailed models of `methods`, on the sample of the layer comparison."""
    chosen = [model for model in recordings.models if model.meta["method"] in methods and model.meta["detailed"]]
    return {model.name: tsne(model.last[recordings.layer_indices].astype(np.float32)) for model in chosen}


def information_on_labels(model: Recording, recordings: Recordings) -> Section:
    """Mutual information of the last tap with the label, on the sample of the layer comparison."""
    rows = recordings.layer_indices
    return asdict(label_information(model.last[rows].astype(np.float64), recordings.labels[rows]))


def information_on_teacher(teacher: Recording, student: Recording, recordings: Recordings) -> Section:
    """Mutual information of the two networks' last taps, on the same sample."""
    rows = recordings.layer_indices
    return asdict(mutual_information(teacher.last[rows].astype(np.float64), student.last[rows].astype(np.float64)))


def _nce_bound(student: Recording, recordings: Recordings) -> Section | None:
    """log K − L of the last tap at the end of stage 1, where the loss is the softmax one (mean of directions)."""
    settings = recordings.context["config"]["crd"]
    history = student.meta["history"]
    if student.meta["method"] != "stage1" or not history or settings["objective"] != "infonce":
        return None
    candidates = settings["num_negatives"] if settings["negatives"] == "bank" else settings["batch_size"] - 1
    loss = history[-1]["crd_last"] / 2
    return {"value": nce_lower_bound(loss, candidates), "loss": loss, "negatives": candidates}


def robustness(models: Sequence[Recording], teacher: Recording | None, recordings: Recordings) -> Section:
    """Error rates under each corruption and severity, and the mean corruption error relative to the teacher."""
    labels = recordings.labels[recordings.corrupted_indices]
    rates = {
        model.name: {
            name: [float((row != labels).mean()) for row in predicted]
            for name, predicted in zip(CORRUPTIONS, model.corrupted, strict=True)
        }
        for model in models
        if model.corrupted.size and model.meta["classifies"]
    }
    if teacher is None or teacher.name not in rates:
        return {"errors": rates, "relative": {}, "images": len(labels)}
    relative = {name: asdict(mean_corruption_error(errors, rates[teacher.name])) for name, errors in rates.items()}
    return {"errors": rates, "relative": relative, "images": len(labels)}


def costs(models: Sequence[Recording], teacher: Recording | None) -> Section:
    """What each model costs and its ratio to the teacher's."""
    measured = {
        model.name: _as_cost(model.meta["cost"])
        for model in models
        if model.meta["cost"] and model.meta["classifies"]
    }
    reference = measured.get(teacher.name) if teacher is not None else None
    return {
        name: {**asdict(cost), "ratio": None if reference is None else asdict(ratio_to(cost, reference))}
        for name, cost in measured.items()
    }


def _as_cost(values: Section) -> Cost:
    return Cost(**{**values, "latencies": [Latency(**latency) for latency in values["latencies"]]})


def sentences(report: Section) -> list[str]:
    """The answers in plain words: over seeds where there are several, otherwise two-stage on these images."""
    if report["seeds"]["comparisons"]:
        return [row["sentence"] for row in report["seeds"]["comparisons"]]
    about = [row["sentence"] for row in report["pairs"] if "two_stage" in (row["a"], row["b"])]
    return about or [row["sentence"] for row in report["pairs"]]
