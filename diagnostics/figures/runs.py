"""Figures of several runs."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from diagnostics.evaluation.runs import ModelOfRun
from diagnostics.figures.style import LIGHT, POINTS, colour, describe, marker, panels
from diagnostics.names import is_first


def accuracy(models: Sequence[ModelOfRun]) -> Figure | None:
    """Top-1 of each model of the first seed with its Wilson interval, a panel a run on one axis, in percent."""
    shown = [row for row in models if is_first(row.accuracy.name)]
    if not shown:
        return None
    runs = list(dict.fromkeys(row.run for row in shown))
    methods = list(dict.fromkeys(row.accuracy.name for row in shown))
    figure, grid = panels(len(runs), 3, 0.9 + 0.24 * len(methods), share=True)
    for axes, run in zip(grid, runs, strict=True):
        for row in (row.accuracy for row in shown if row.run == run):
            place = methods.index(row.name)
            low, top1, high = (100 * value for value in (row.low, row.top1, row.high))
            axes.plot([low, high], [place, place], color=colour(row.name), linewidth=1.6)
            axes.plot(top1, place, marker(row.name), color=colour(row.name), markersize=6)
        axes.set_yticks(range(len(methods)), methods, fontsize=POINTS)
        axes.set_ylim(len(methods) - 0.5, -0.5)
        axes.grid(axis="x", color=LIGHT)
        axes.set_axisbelow(True)
        describe(axes, x="test top-1, %", title=run.replace("$", r"\$"))
    return figure


def words(models: Sequence[ModelOfRun]) -> str:
    """The numbers of that figure as text, for who does not see it."""
    shown = [row for row in models if is_first(row.accuracy.name)]
    return "; ".join(
        f"{row.run}, {row.accuracy.name} {100 * row.accuracy.top1:.1f} % "
        f"({100 * row.accuracy.low:.1f} to {100 * row.accuracy.high:.1f})"
        for row in shown
    )
