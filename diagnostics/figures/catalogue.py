"""Every figure of the report, from its numbers alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from diagnostics.figures import features, predictions, training
from diagnostics.recording import Recording
from diagnostics.results import LayerMatrix, Report

Maps = Mapping[str, NDArray[np.float64]]  # by model, (M, 2)


def _layers(report: Report) -> dict[str, LayerMatrix]:
    return {name: part.layers for name, part in (report.representation or {}).items()}


def _epochs_before(report: Report) -> dict[str, int]:
    """Epochs of the trainings that each method went through before its last one, as in the first seed."""
    given = {} if report.given is None else report.given.models
    known = {name: sum(one.epochs for one in trainings[:-1]) for name, trainings in given.items() if trainings}
    return {"two_stage": len(report.curves.get("stage1", []))} | known


FIGURES: dict[str, Callable[[Report, Recording, Maps], Figure | None]] = {  # in the order of the report
    "accuracy": lambda report, recording, maps: predictions.accuracy(report.models),
    "contingency": lambda report, recording, maps: predictions.contingency(report.pairs),
    "class_change": lambda report, recording, maps: predictions.class_change(
        report.fidelity or {}, report.context.classes
    ),
    "layers": lambda report, recording, maps: features.layers(_layers(report)),
    "tsne": lambda report, recording, maps: features.embedding(
        maps, recording.labels[recording.layer_indices], report.context.classes
    ),
    "reliability": lambda report, recording, maps: predictions.reliability(report.calibration),
    "corruptions": lambda report, recording, maps: predictions.corruptions(report.robustness.errors),
    "cost": lambda report, recording, maps: predictions.cost(report.cost, report.models),
    "stage1": lambda report, recording, maps: training.stage1(report.curves.get("stage1", [])),
    "stage2": lambda report, recording, maps: training.stage2(report.curves.get("two_stage", [])),
    "training": lambda report, recording, maps: training.by_epoch(report.curves, _epochs_before(report)),
}


def draw_all(report: Report, recording: Recording, maps: Maps) -> dict[str, Figure]:
    """Figures by name; one whose numbers are not there is left out.

    maps: points a model, of `analysis.embeddings`.
    """
    drawn = {name: draw(report, recording, maps) for name, draw in FIGURES.items()}
    return {name: figure for name, figure in drawn.items() if figure is not None}
