"""Every figure of the report, from its numbers alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from matplotlib.figure import Figure
from numpy.typing import NDArray

from diagnostics.figures import features as figures_features
from diagnostics.figures import predictions as figures_predictions
from diagnostics.figures import training as figures_training
from diagnostics.recording import Recordings

Report = Mapping[str, Any]
Maps = Mapping[str, NDArray[Any]]

FIGURES: dict[str, Callable[[Report, Recordings, Maps], Figure | None]] = {  # in the order of the report
    "accuracy": lambda report, recordings, maps: figures_predictions.accuracy(report["models"]),
    "contingency": lambda report, recordings, maps: figures_predictions.contingency(report["pairs"]),
    "class_change": lambda report, recordings, maps: figures_predictions.class_change(
        report.get("fidelity", {}), report["context"]["classes"]
    ),
    "layers": lambda report, recordings, maps: figures_features.layers(report.get("representation", {})),
    "tsne": lambda report, recordings, maps: figures_features.embedding(
        maps, recordings.labels[recordings.layer_indices], report["context"]["classes"]
    ),
    "reliability": lambda report, recordings, maps: figures_predictions.reliability(report["calibration"]),
    "corruptions": lambda report, recordings, maps: figures_predictions.corruptions(
        report["robustness"]["errors"]
    ),
    "cost": lambda report, recordings, maps: figures_predictions.cost(report["cost"], report["models"]),
    "stage1": lambda report, recordings, maps: figures_training.stage1(report["curves"].get("stage1", [])),
    "stage2": lambda report, recordings, maps: figures_training.stage2(report["curves"].get("two_stage", [])),
    "training": lambda report, recordings, maps: figures_training.accuracy_by_epoch(report["curves"]),
}


def draw_all(report: Report, recordings: Recordings, maps: Maps) -> dict[str, Figure]:
    """Figures by name; one whose numbers are not there is left out.

    report: what `analysis.analyse` gives; maps: (M, 2) points a model, of `analysis.embeddings`.
    """
    drawn = {name: draw(report, recordings, maps) for name, draw in FIGURES.items()}
    return {name: figure for name, figure in drawn.items() if figure is not None}
