"""Figures of training: every measure of one stage, and all students side by side.

Each takes histories, lists of one dict an epoch, and gives None where they hold nothing to draw. Whatever was
measured is drawn, by its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from diagnostics.figures.style import LIGHT, MARKERS, PALETTE, POINTS, colour, describe, key, marker, panels
from diagnostics.names import is_first, method_of
from diagnostics.terms import ACCURACY, LOSS, History, group_measures, is_accuracy, list_terms

LINES = ("-", "--", ":", "-.")
WIDE_RANGE = 30  # of values in one panel, from which on it is drawn in decades

Points = Sequence[tuple[float, float]]


def stage(history: History, axis: str) -> Figure | None:
    """Draw all that was measured by epoch of one training, a panel a kind of measure.

    axis: what its epochs are of.
    """
    groups = group_measures(history)
    if not groups:
        return None
    figure, grid = panels(len(groups), 2, 2.5)
    for axes, (title, names) in zip(grid, groups.items(), strict=True):
        for number, name in enumerate(names):
            axes.plot(
                *zip(*_points(history, name), strict=True),
                color=PALETTE[number % len(PALETTE)],
                marker=MARKERS[number % len(MARKERS)],
                linestyle=LINES[number % len(LINES)],
                markersize=4,
                linewidth=1,
                label=name,
            )
        _finish(axes, history[-1]["epoch"])
        axes.legend(fontsize=POINTS, frameon=False)
        if title == LOSS:
            _scale(axes)
        describe(axes, axis, title)
    return figure


def by_epoch(curves: Mapping[str, History], before: Mapping[str, int]) -> Figure | None:
    """Draw test top-1 of every student, and learning rate and terms of every training, by epoch.

    A stage begins where the one before it ended. The rate is that at which an epoch began.

    before: epochs of the stages before, by curve or by method; what is not there has none.
    """
    students = {name: history for name, history in curves.items() if method_of(name) != "teacher"}
    if not any("test_top1" in epoch for history in students.values() for epoch in history):
        return None
    first = {name: history for name, history in curves.items() if is_first(name)}
    terms = list(dict.fromkeys(name for history in first.values() for name in list_terms(history)))
    shown = {"test_top1": students, "learning_rate": first, **dict.fromkeys(terms, first)}
    figure, grid = panels(len(shown), 2, 2.5)
    drawn: dict[str, None] = {}
    starts = {name: before.get(name, before.get(method_of(name), 0)) for name in curves}
    last = max(starts[name] + history[-1]["epoch"] for name, history in curves.items() if history)
    for axes, (measure, histories) in zip(grid, shown.items(), strict=True):
        for name, history in histories.items():
            points = [(starts[name] + epoch, value) for epoch, value in _points(history, measure)]
            if points:
                _curve(axes, name, points)
                drawn[name] = None
        _finish(axes, last)
        if measure in terms:
            _scale(axes)
        describe(axes, "epoch, stages before included", _title(measure))
    rates = grid[1]
    if rates.lines:
        rates.set_yscale("log")
    key(figure, [name for name in drawn if is_first(name) and method_of(name) == name])
    return figure


def _title(measure: str) -> str:
    return {"test_top1": f"test {ACCURACY}", "learning_rate": "learning rate"}.get(measure, measure)


def _points(history: History, name: str) -> Points:
    """Return epochs and values; accuracies are in percent, and a rate of 0 is none."""
    scale = 100 if is_accuracy(name) else 1
    found = [(epoch["epoch"], scale * epoch[name]) for epoch in history if name in epoch]
    return [(epoch, value) for epoch, value in found if name != "learning_rate" or value > 0]


def _curve(axes: Axes, name: str, points: Points) -> None:
    first = is_first(name)
    axes.plot(
        *zip(*points, strict=True),
        color=colour(name),
        marker=marker(name) if first else None,
        markersize=4,
        linewidth=1.4 if first else 0.7,
    )


def _scale(axes: Axes) -> None:
    """Begin an axis at 0, or draw it in decades where small values would not be seen."""
    values = [value for line in axes.lines for value in np.asarray(line.get_ydata(), dtype=np.float64).tolist()]
    if min(values) > 0 and max(values) > WIDE_RANGE * min(values):
        axes.set_yscale("log")
    elif min(values) >= 0 < max(values):
        axes.set_ylim(0, 1.05 * max(values))


def _finish(axes: Axes, last: float) -> None:
    axes.set_xlim(0.5, last + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color=LIGHT)
