"""Figures of what the models predict: who is right, where, how surely, under corruption, and at what cost.

Each function takes a section of the report and gives a figure, or None where there is nothing to draw.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from diagnostics.calibration import Calibration
from diagnostics.figures.style import GREY, LIGHT, NARROW, POINTS, colour, describe, key, label, marker, panels
from diagnostics.names import focus, is_first
from diagnostics.results import ErrorRates, Faithfulness, ModelAccuracy, Pair, RelativeCost

MOST_CLASSES = 30  # rows of the class figure; with more classes, the half that lost and the half that gained most
SHADES = "Blues"


def accuracy(models: Sequence[ModelAccuracy]) -> Figure | None:
    """Top-1 of each model with its Wilson interval, in percent."""
    if not models:
        return None
    order = list(dict.fromkeys(model.method for model in models))
    models = sorted(models, key=lambda model: order.index(model.method))  # the seeds of a method together
    figure, (axes,) = panels(1, 1, 0.9 + 0.26 * len(models), width=NARROW)
    for row, model in enumerate(models):
        low, top1, high = (100 * value for value in (model.low, model.top1, model.high))
        axes.plot([low, high], [row, row], color=colour(model.name), linewidth=1.6)
        axes.plot(top1, row, marker(model.name), color=colour(model.name), markersize=6)
        axes.annotate(f"{top1:.1f}", (top1, row), (0, 5), textcoords="offset points", ha="center", fontsize=POINTS)
    axes.set_yticks(range(len(models)), [label(model.name) for model in models])
    axes.set_ylim(len(models) - 0.5, -0.8)
    axes.grid(axis="x", color=LIGHT)
    axes.set_axisbelow(True)
    describe(axes, x="test top-1 in %, line: 95 % Wilson interval")
    return figure


def contingency(pairs: Sequence[Pair]) -> Figure | None:
    """Who is right on which images: the teacher against each student of the first seed, as in the paper."""
    shown = [pair for pair in pairs if pair.a == "teacher" and is_first(pair.b)]
    if not shown:
        return None
    figure, grid = panels(len(shown), 3, 2.2)
    for axes, pair in zip(grid, shown, strict=True):
        cells = pair.statistics.counts
        counts = np.array([[cells.a, cells.b], [cells.c, cells.d]])
        shares = counts / pair.statistics.n
        axes.imshow(shares, cmap=SHADES, vmin=0, vmax=1, aspect="auto")
        for (row, column), share in np.ndenumerate(shares):
            text = f"{counts[row, column]:,}\n{100 * share:.1f} %"
            shade = "white" if share > 0.6 else "black"
            axes.text(column, row, text, ha="center", va="center", fontsize=POINTS, color=shade)
        axes.set_xticks([0, 1], ["right", "wrong"])
        axes.set_yticks([0, 1], ["right", "wrong"], rotation=90, va="center")
        axes.tick_params(length=0)
        describe(axes, "student", "teacher", pair.b)
    return figure


def chosen_classes(change: Sequence[float | None], most: int = MOST_CLASSES) -> list[int]:
    """Classes by falling change of accuracy; with more than `most`, the `most` / 2 at either end."""
    known = [(c, value) for c, value in enumerate(change) if value is not None]
    order = [c for c, value in sorted(known, key=lambda item: (-item[1], item[0]))]
    return order if len(order) <= most else order[: most // 2] + order[-(most // 2) :]


def class_change(fidelity: Mapping[str, Faithfulness], classes: Sequence[str]) -> Figure | None:
    """Each class's accuracy minus the teacher's, for the students of the first seed, sorted by the focus."""
    names = [name for name in fidelity if is_first(name)]
    if not names:
        return None
    main = focus(names)
    changes = {name: fidelity[name].result.accuracy_change for name in names}
    change = changes[main]
    shown = chosen_classes(change)
    figure, (axes,) = panels(1, 1, 1.4 + 0.19 * len(shown), width=NARROW)
    rows = np.arange(len(shown))
    axes.use_sticky_edges = False  # room for markers at 0
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.barh(rows, _points(change, shown), height=0.55, color=LIGHT)
    for name in [*(name for name in names if name != main), main]:  # the focus on top
        face, points = colour(name) if name == main else "none", _points(changes[name], shown)
        axes.plot(points, rows, marker(name), color=colour(name), markerfacecolor=face, markersize=5)
    axes.set_yticks(rows, [label(classes[c]) for c in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    if len(shown) < sum(value is not None for value in change):
        axes.axhline(len(shown) / 2 - 0.5, color=GREY, linewidth=0.8, linestyle=":")
    describe(axes, x="accuracy minus the teacher's, points")
    key(figure, names, hollow=[name for name in names if name != main])
    return figure


def _points(change: Sequence[float | None], classes: Sequence[int]) -> list[float]:
    """Changes of these classes in percent points; one that is not defined is not drawn."""
    return [math.nan if (value := change[c]) is None else 100 * value for c in classes]


def reliability(calibration: Mapping[str, Calibration]) -> Figure | None:
    """Accuracy against confidence in bins, the models of the first seed; a point's area is its share of images."""
    names = [name for name in calibration if is_first(name)]
    if not names:
        return None
    figure, grid = panels(len(names), 3, 2.1, share=True)
    for number, (axes, name) in enumerate(zip(grid, names, strict=True)):
        bins = [part for part in calibration[name].reliability if part.count]
        confidence = [100 * part.confidence for part in bins if part.confidence is not None]
        right = [100 * part.accuracy for part in bins if part.accuracy is not None]
        share = np.array([part.count for part in bins]) / calibration[name].images
        axes.plot([0, 100], [0, 100], color=GREY, linewidth=0.8, linestyle="--")
        axes.plot(confidence, right, color=colour(name), linewidth=0.6, alpha=0.5)
        axes.scatter(
            confidence, right, s=6 + 90 * share, color=colour(name), marker=marker(name), zorder=3, clip_on=False
        )
        axes.set_xticks([0, 50, 100])
        axes.set_yticks([0, 50, 100])
        error = 100 * calibration[name].ece
        describe(axes, "confidence, %", "accuracy, %" if number % 3 == 0 else "", f"{name}, ECE {error:.1f} %")
    return figure


def corruptions(errors: Mapping[str, ErrorRates]) -> Figure | None:
    """Error under each corruption by severity."""
    names = [name for name in errors if is_first(name)]
    if not names:
        return None
    kinds = list(errors[names[0]])
    figure, grid = panels(len(kinds), 3, 1.9, share=True)
    for number, (axes, kind) in enumerate(zip(grid, kinds, strict=True)):
        for name in names:
            rates = [100 * rate for rate in errors[name][kind]]
            axes.plot(
                range(1, 6), rates, marker=marker(name), color=colour(name), markersize=4, linewidth=1, alpha=0.9
            )
        axes.set_xticks(range(1, 6))
        axes.grid(axis="y", color=LIGHT)
        describe(axes, "severity", "error, %" if number % 3 == 0 else "", kind.replace("_", " "))
    grid[0].set_ylim(0, max(100 * rate for name in names for rates in errors[name].values() for rate in rates) + 3)
    key(figure, names)
    return figure


def cost(costs: Mapping[str, RelativeCost], models: Sequence[ModelAccuracy]) -> Figure | None:
    """Top-1 against parameters and against the time of one image, the models of the first seed."""
    shown = [model for model in models if model.name in costs]
    if not shown:
        return None
    figure, (left, right) = panels(2, 2, 2.7)
    _against(left, shown, [costs[model.name].cost.parameters for model in shown])
    _against(right, shown, [costs[model.name].cost.latencies[0].median_ms for model in shown])
    batch = costs[shown[0].name].cost.latencies[0].batch
    describe(left, "parameters", "top-1, %")
    describe(right, f"median time of a batch of {batch}, ms")
    key(figure, [model.name for model in shown])
    return figure


def _against(axes: Axes, models: Sequence[ModelAccuracy], values: Sequence[float]) -> None:
    for model, value in zip(models, values, strict=True):
        low, top1, high = (100 * value for value in (model.low, model.top1, model.high))
        shade = colour(model.name)
        axes.plot([value, value], [low, high], color=shade, linewidth=0.8, alpha=0.6)
        axes.plot(value, top1, marker(model.name), color=shade, markersize=6, alpha=0.9)
    if max(values) > 8 * min(values):
        axes.set_xscale("log")
        axes.set_xlim(min(values) / 2, 2 * max(values))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(0, 1.1 * max(values))
        axes.locator_params(axis="x", nbins=5)
    axes.xaxis.set_major_formatter(lambda value, _: short(value))
    axes.grid(color=LIGHT)
    axes.set_axisbelow(True)


def short(value: float) -> str:
    """1,200,000 is `1.2M`; 0.25 stays."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"
