"""Figures of features: layers that look alike, and maps of the classes.

Letters: M images of the layer sample.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from diagnostics.evaluation.results import LayerMatrix
from diagnostics.figures.fonts import label_classes, list_families
from diagnostics.figures.style import (
    CLASSES,
    LIGHT,
    MARKERS,
    POINTS,
    describe,
    label_model,
    make_panels,
    truncate_label,
)

MOST_TICKS = 14
MOST_COLOURED = 10  # classes told apart in a map


def draw_layers(representation: Mapping[str, LayerMatrix]) -> Figure | None:
    """Draw CKA of every teacher layer (rows, first at the bottom) with every layer of each student (columns)."""
    matrices = {name: part for name, part in representation.items() if part.matrix.values}
    if not matrices:
        return None
    deepest = max(min(len(part.teacher), MOST_TICKS) for part in matrices.values())
    figure, grid = make_panels(len(matrices), 3, 1.3 + 0.2 * deepest)
    for number, (axes, (name, part)) in enumerate(zip(grid, matrices.items(), strict=True)):
        image = _draw_heat_map(axes, np.array(part.matrix.values, dtype=np.float64))
        _draw_ticks(axes, part.teacher, part.student, rows=number % 3 == 0)
        describe(axes, "student", "teacher" if number % 3 == 0 else "", label_model(name))
    bar = figure.colorbar(image, ax=grid, shrink=0.6, pad=0.02)
    bar.set_label("linear CKA", fontsize=POINTS)
    bar.ax.tick_params(labelsize=POINTS)
    return figure


def _draw_heat_map(axes: Axes, values: NDArray[np.float64]) -> AxesImage:
    axes.set_facecolor(LIGHT)  # shows where a value is not defined
    image = axes.imshow(
        np.ma.masked_invalid(values),
        cmap="cividis",
        vmin=0,
        vmax=1,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
    )
    if values.shape[1] <= 4 and values.shape[0] <= MOST_TICKS:
        for (row, column), value in np.ndenumerate(values):
            text = "n/a" if np.isnan(value) else f"{value:.2f}"
            shade = "white" if value < 0.55 else "black"
            axes.text(column, row, text, ha="center", va="center", fontsize=POINTS, color=shade)
    return image


def _draw_ticks(axes: Axes, teacher: Sequence[str], student: Sequence[str], rows: bool) -> None:
    across, up = _select_names(student, 6), _select_names(teacher, MOST_TICKS)
    axes.set_xticks(across, [truncate_label(student[position]) for position in across], rotation=90)
    axes.set_yticks(up, [truncate_label(teacher[position]) for position in up] if rows else [])


def _select_names(names: Sequence[str], most: int) -> list[int]:
    """Return positions of at most `most` names, evenly apart, the last one among them."""
    step = max(1, math.ceil(len(names) / most))
    return list(range(len(names) - 1, -1, -step))[::-1]


def choose_coloured(classes: int) -> list[int]:
    """Return all classes, or ten of them evenly apart where there are more."""
    if classes <= MOST_COLOURED:
        return list(range(classes))
    return [number * classes // MOST_COLOURED for number in range(MOST_COLOURED)]


def draw_maps(
    maps: Mapping[str, NDArray[np.float64]], labels: NDArray[np.int64], classes: Sequence[str]
) -> Figure | None:
    """Draw t-SNE maps (M, 2) side by side, a colour and marker a class of labels (M,); other classes in grey."""
    if not maps:
        return None
    shown = choose_coloured(len(classes))
    looks = {c: (CLASSES[place], MARKERS[place]) for place, c in enumerate(shown)}
    figure, grid = make_panels(len(maps), 3, 3.1)
    for axes, (name, points) in zip(grid, maps.items(), strict=True):
        others = ~np.isin(labels, shown)
        axes.scatter(points[others, 0], points[others, 1], s=3, color=LIGHT, linewidths=0, rasterized=True)
        for c, (shade, shape) in looks.items():
            axes.scatter(
                points[labels == c, 0],
                points[labels == c, 1],
                s=12,
                color=shade,
                marker=shape,
                edgecolors="#555555",
                linewidths=0.2,
                rasterized=True,
            )
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        describe(axes, title=label_model(name))
    names = label_classes(classes)
    handles = [
        Line2D([], [], linestyle="", marker=shape, color=shade, label=names[c])
        for c, (shade, shape) in looks.items()
    ]
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, min(5, int(figure.get_figwidth() / (0.5 + 0.085 * longest))))  # inches of marker and letters
    font = FontProperties(family=list(list_families()), size=POINTS)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, prop=font, frameon=False)
    return figure
