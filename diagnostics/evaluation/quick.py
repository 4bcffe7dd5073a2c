"""Accuracy and paired tests of a run alone, in seconds: no features, no corruptions, no files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diagnostics.evaluation.analysis import compare_methods, compare_pairs
from diagnostics.evaluation.pairs import measure_accuracy
from diagnostics.evaluation.recording import EvaluatedModel, Meta, RecordedModel
from diagnostics.evaluation.results import ModelAccuracy, OverSeeds, Pair
from diagnostics.names import choose_main, is_first
from training.evaluation import predict
from training.experiment import Experiment


@dataclass(frozen=True)
class QuickReport:
    """Accuracies of the models of a run, and their comparisons."""

    images: int
    main: str | None
    models: list[ModelAccuracy]
    pairs: list[Pair]
    seeds: OverSeeds


def evaluate_quickly(experiment: Experiment, subjects: Sequence[EvaluatedModel]) -> QuickReport:
    """Return the top-1 of each model on the test images, and the tests between them."""
    classifiers = [_predict(experiment, subject) for subject in subjects if subject.classifies]
    labels = experiment.data.test.labels.cpu().numpy()  # (N,)
    correct = {model.name: np.asarray(model.logits.argmax(axis=1) == labels) for model in classifiers}
    students = [model.name for model in classifiers if is_first(model.name) and model.meta.method != "teacher"]
    models = [measure_accuracy(model.meta, correct[model.name]) for model in classifiers]
    return QuickReport(
        images=len(labels),
        main=choose_main(students) if students else None,
        models=models,
        pairs=compare_pairs(models, correct),
        seeds=compare_methods(classifiers, correct),
    )


def _predict(experiment: Experiment, subject: EvaluatedModel) -> RecordedModel:
    logits = predict(subject.build(), experiment.data.test, experiment.machine).cpu().numpy()  # (N, C)
    meta = Meta(
        name=subject.name,
        method=subject.method,
        seed=subject.seed,
        arch=subject.arch,
        weights_hash=subject.weights_hash,
        classifies=True,
        detailed=False,
        history=[],
        layers=[],
        widths=[],
        cost=None,
    )
    none, no_images = np.empty((0, 0), np.float16), np.empty((0, 0, 0), np.int32)
    return RecordedModel(meta, logits, none, none, none, none, no_images, {})
