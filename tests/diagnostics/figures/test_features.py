from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from CKA.minibatch import SimilarityMatrix
from diagnostics.evaluation.results import LayerMatrix
from diagnostics.figures.features import coloured_classes, embedding, layers


def texts(figure: Figure) -> list[str]:
    """All that is written in the panels of a figure."""
    found = []
    for axes in figure.axes:
        found += [axes.get_xlabel(), axes.get_ylabel(), axes.get_title(loc="left")]
        found += [text.get_text() for text in (*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels())]
    return found


def matrix(teacher: list[str], student: list[str], values: list[list[float | None]]) -> LayerMatrix:
    return LayerMatrix(teacher, student, SimilarityMatrix(values, 10, 1))


def test_layers_show_where_a_value_is_not_defined():
    written = texts(layers({"kd": matrix(["a", "b"], ["c"], [[0.5], [None]])}))
    assert {"0.50", "n/a", "a", "b", "c", "kd"} <= set(written)
    assert layers({}) is None


def test_deep_networks_keep_few_layer_names():
    names = [f"layer{number}" for number in range(54)]
    figure = layers({"kd": matrix(names, names, np.eye(54).tolist())})
    shown = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert len(shown) <= 14 and shown[-1] == "layer53"


def test_maps_colour_ten_of_many_classes():
    assert coloured_classes(4) == [0, 1, 2, 3]
    assert coloured_classes(100) == list(range(0, 100, 10))
    labels = np.arange(100)
    figure = embedding({"teacher": np.zeros((100, 2))}, labels, [str(c) for c in labels])
    grey, *others = figure.axes[0].collections
    assert len(grey.get_offsets()) == 90 and [len(part.get_offsets()) for part in others] == [1] * 10
    assert len({tuple(part.get_facecolor()[0]) for part in others}) == 10
    assert embedding({}, labels, []) is None
