"""Every figure of the report, from its numbers alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from diagnostics.evaluation.recording import History, Recording
from diagnostics.evaluation.results import LayerMatrix, Report
from diagnostics.figures import features, predictions, training

Maps = Mapping[str, NDArray[np.float64]]  # by model, (M, 2)


def _layers(report: Report) -> dict[str, LayerMatrix]:
    return {name: part.layers for name, part in (report.representation or {}).items()}


def _count_before(report: Report) -> dict[str, int]:
    """Return the epochs that came before each curve: of stages before it, as in the first seed."""
    given = {} if report.given is None else report.given.models
    before = {report.main or "": len(report.curves.get("stage1", []))}
    for name, trainings in given.items():
        done = 0
        for one in trainings or []:
            before[one.title] = before[name] = done
            done += one.epochs
    return before


def _main_history(report: Report) -> History:
    return report.curves.get(report.main or "", [])


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
    "stage1": lambda report, recording, maps: training.stage(report.curves.get("stage1", []), "epoch of stage 1"),
    "stage2": lambda report, recording, maps: training.stage(
        _main_history(report), f"epoch of {report.main}'s last stage"
    ),
    "training": lambda report, recording, maps: training.by_epoch(report.curves, _count_before(report)),
}


def draw_all(report: Report, recording: Recording, maps: Maps) -> dict[str, Figure]:
    """Draw figures by name; one whose numbers are not there is left out.

    maps: points a model, of `analysis.embeddings`.
    """
    drawn = {name: draw(report, recording, maps) for name, draw in FIGURES.items()}
    return {name: figure for name, figure in drawn.items() if figure is not None}
