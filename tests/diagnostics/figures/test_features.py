from __future__ import annotations

import numpy as np

from CKA.minibatch import SimilarityMatrix
from diagnostics.evaluation.results import LayerMatrix
from diagnostics.figures.features import choose_coloured, draw_layers, draw_maps
from tests.diagnostics.figures.test_predictions import list_texts


def matrix(teacher: list[str], student: list[str], values: list[list[float | None]]) -> LayerMatrix:
    return LayerMatrix(teacher, student, SimilarityMatrix(values, 10, 1))


def test_layers_show_where_a_value_is_not_defined() -> None:
    written = list_texts(draw_layers({"kd": matrix(["a", "b"], ["c"], [[0.5], [None]])}))
    assert {"0.50", "n/a", "a", "b", "c", "kd"} <= set(written)
    assert draw_layers({}) is None


def test_deep_networks_keep_few_layer_names() -> None:
    names = [f"layer{number}" for number in range(54)]
    figure = draw_layers({"kd": matrix(names, names, np.eye(54).tolist())})
    shown = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert len(shown) <= 14 and shown[-1] == "layer53"


def test_maps_colour_ten_of_many_classes() -> None:
    assert choose_coloured(4) == [0, 1, 2, 3]
    assert choose_coloured(100) == list(range(0, 100, 10))
    labels = np.arange(100)
    figure = draw_maps({"teacher": np.zeros((100, 2))}, labels, [str(c) for c in labels])
    grey, *others = figure.axes[0].collections
    assert len(grey.get_offsets()) == 90 and [len(part.get_offsets()) for part in others] == [1] * 10
    assert len({tuple(part.get_facecolor()[0]) for part in others}) == 10
    assert draw_maps({}, labels, []) is None
