"""The figure of training: every measure of every method, its stages one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from diagnostics.figures.style import LIGHT, describe, draw_key, make_panels, pick_colour, pick_marker
from diagnostics.names import get_method, is_first
from diagnostics.terms import History, is_accuracy, list_terms

WIDE_RANGE = 30  # of values in one panel, from which on it is drawn in decades
TITLES = {"test_top1": "test top-1, %", "val_top1": "validation top-1, %", "learning_rate": "learning rate"}

Points = Sequence[tuple[float, float]]


def draw_epochs(curves: Mapping[str, History], before: Mapping[str, int]) -> Figure | None:
    """Draw by epoch the test top-1 of every student, and all that trainings of the first seed measured.

    A stage begins where the one before it ended. The learning rate is that at which an epoch began.

    before: epochs of the stages before, by curve or by method; what is not there has none.
    """
    students = {name: history for name, history in curves.items() if get_method(name) != "teacher"}
    if not any("test_top1" in epoch for history in students.values() for epoch in history):
        return None
    first = {name: history for name, history in curves.items() if is_first(name)}
    terms = list(dict.fromkeys(name for history in first.values() for name in list_terms(history)))
    is_validated = any("val_top1" in epoch for history in first.values() for epoch in history)
    others = ["learning_rate", *(["val_top1"] if is_validated else []), *terms]
    shown = {"test_top1": students, **dict.fromkeys(others, first)}
    figure, grid = make_panels(len(shown), 2, 2.5)
    starts = {name: before.get(name, before.get(get_method(name), 0)) for name in curves}
    last = max(starts[name] + history[-1]["epoch"] for name, history in curves.items() if history)
    drawn: dict[str, None] = {}
    for axes, (measure, histories) in zip(grid, shown.items(), strict=True):
        for name, history in histories.items():
            points = [(starts[name] + epoch, value) for epoch, value in _list_points(history, measure)]
            if points:
                _draw_curve(axes, name, points)
                drawn[get_method(name)] = None
        axes.set_xlim(0.5, last + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y", color=LIGHT)
        if measure in terms:
            _scale(axes)
        elif measure == "learning_rate" and axes.lines:
            axes.set_yscale("log")
        describe(axes, "epoch, stages before included", TITLES.get(measure, measure))
    draw_key(figure, list(drawn))
    return figure


def _list_points(history: History, name: str) -> Points:
    """Return epochs and values; accuracies are in percent, and a rate of 0 is none."""
    scale = 100 if is_accuracy(name) else 1
    found = [(epoch["epoch"], scale * epoch[name]) for epoch in history if name in epoch]
    return [(epoch, value) for epoch, value in found if name != "learning_rate" or value > 0]


def _draw_curve(axes: Axes, name: str, points: Points) -> None:
    first = is_first(name)
    axes.plot(
        *zip(*points, strict=True),
        color=pick_colour(name),
        marker=pick_marker(name) if first else None,
        markersize=4,
        linewidth=1.4 if first else 0.7,
    )


def _scale(axes: Axes) -> None:
    """Begin an axis at 0, or draw it in decades where small values would not be seen."""
    values = [value for line in axes.lines for value in np.asarray(line.get_ydata(), dtype=np.float64).tolist()]
    if not values:
        return
    if min(values) > 0 and max(values) > WIDE_RANGE * min(values):
        axes.set_yscale("log")
    elif min(values) >= 0 < max(values):
        axes.set_ylim(0, 1.05 * max(values))
