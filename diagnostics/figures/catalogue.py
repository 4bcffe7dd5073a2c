"""Every figure of the report, from its numbers alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from diagnostics.evaluation.recording import Recording
from diagnostics.evaluation.results import Report
from diagnostics.figures import features, predictions, training

Maps = Mapping[str, NDArray[np.float64]]  # by model, (M, 2)
NO_MODEL = "No model classifies."


@dataclass(frozen=True)
class Drawing:
    """A way to draw a figure, the table that has numbers of it, and why it may be missing."""

    draw: Callable[[Report, Recording, Maps], Figure | None]
    table: str
    missing: str


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


FIGURES = {  # in the order of the report
    "accuracy": Drawing(
        lambda report, recording, maps: predictions.draw_accuracy(report.models), "models", NO_MODEL
    ),
    "layers": Drawing(
        lambda report, recording, maps: features.draw_layers(
            {name: part.layers for name, part in (report.representation or {}).items()}
        ),
        "representation",
        "There is no student with a teacher beside it.",
    ),
    "tsne": Drawing(
        lambda report, recording, maps: features.draw_maps(
            maps, recording.labels[recording.layer_indices], report.context.classes
        ),
        "geometry",
        "It needs a teacher or a student, and 10 images.",
    ),
    "reliability": Drawing(
        lambda report, recording, maps: predictions.draw_reliability(report.calibration), "calibration", NO_MODEL
    ),
    "corruptions": Drawing(
        lambda report, recording, maps: predictions.draw_corruptions(report.robustness.errors),
        "robustness",
        "No model was tested on corrupted images.",
    ),
    "training": Drawing(
        lambda report, recording, maps: training.draw_epochs(report.curves, _count_before(report)),
        "reached",
        "No training of these students is on record.",
    ),
}


def draw_all(report: Report, recording: Recording, maps: Maps) -> dict[str, Figure]:
    """Draw figures by name; one whose numbers are not there is left out.

    maps: points a model, of `analysis.map_features`.
    """
    drawn = {name: drawing.draw(report, recording, maps) for name, drawing in FIGURES.items()}
    return {name: figure for name, figure in drawn.items() if figure is not None}
