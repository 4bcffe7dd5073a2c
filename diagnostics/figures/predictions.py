"""Figures of what the models predict: who is right, where, how surely, under corruption, and at what cost.

Each function takes a section of the report and gives a figure, or None where there is nothing to draw.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from diagnostics.calibration import Calibration
from diagnostics.comparison import wilson_interval
from diagnostics.evaluation.results import ErrorRates, Faithfulness, ModelAccuracy, Pair, RelativeCost
from diagnostics.figures.fonts import class_labels, families
from diagnostics.figures.style import (
    GREY,
    LIGHT,
    NARROW,
    POINTS,
    WIDTH,
    beyond,
    colour,
    describe,
    key,
    label,
    marker,
    panels,
    window,
)
from diagnostics.names import focus, is_first

MOST_CLASSES = 30  # rows of the class figure; with more classes, the half that lost and the half that gained most
SHADES = "Blues"
ENOUGH = 20  # images of a bin whose accuracy a line goes through
NEARLY, APART = 0.03, 1.045  # costs that count as equal, and the factor between marks that stand side by side
BESIDE = 1.8  # how far a logarithmic axis goes beyond its marks, as a factor


def accuracy(models: Sequence[ModelAccuracy]) -> Figure | None:
    """Top-1 of each model with its Wilson interval, in percent; a teacher far off stands at the edge, in words."""
    if not models:
        return None
    order = list(dict.fromkeys(model.method for model in models))
    models = sorted(models, key=lambda model: order.index(model.method))  # the seeds of a method together
    figure, (axes,) = panels(1, 1, 0.9 + 0.26 * len(models), width=NARROW)
    ends = _window(models)
    for row, model in enumerate(models):
        low, top1, high = _percent(model)
        if ends and model.method == "teacher":
            beyond(axes, top1, row, ends)
            continue
        axes.plot([low, high], [row, row], color=colour(model.name), linewidth=1.6)
        axes.plot(top1, row, marker(model.name), color=colour(model.name), markersize=6)
        axes.annotate(f"{top1:.1f}", (top1, row), (0, 5), textcoords="offset points", ha="center", fontsize=POINTS)
    if ends:
        axes.set_xlim(ends)
    axes.set_yticks(range(len(models)), [label(model.name) for model in models])
    axes.set_ylim(len(models) - 0.5, -0.8)
    axes.grid(axis="x", color=LIGHT)
    axes.set_axisbelow(True)
    describe(axes, x="test top-1 in %, line: 95 % Wilson interval")
    return figure


def _percent(model: ModelAccuracy) -> tuple[float, float, float]:
    """Lower end, top-1 and upper end."""
    return 100 * model.low, 100 * model.top1, 100 * model.high


def _window(models: Sequence[ModelAccuracy]) -> tuple[float, float] | None:
    students = [_percent(model) for model in models if model.method != "teacher"]
    return window(students, [value for model in models if model.method == "teacher" for value in _percent(model)])


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
    """Each class's accuracy minus the teacher's, a panel a student of the first seed, sorted by the focus."""
    names = [name for name in fidelity if is_first(name)]
    if not names:
        return None
    main = focus(names)
    names = [main, *(name for name in names if name != main)]
    changes = {name: fidelity[name].result.accuracy_change for name in names}
    shown = chosen_classes(changes[main])
    rows = np.arange(len(shown))
    height = 1.0 + (0.15 if len(shown) > 15 else 0.19) * len(shown)
    figure, grid = panels(len(names), 5, height, share=True, width=NARROW if len(names) == 1 else WIDTH)
    for axes, name in zip(grid, names, strict=True):
        points = _points(changes[name], shown)
        axes.axvline(0, color=GREY, linewidth=0.8)
        axes.barh(rows, points, height=0.62, color=colour(name), alpha=0.75)
        axes.plot(points, rows, "|", color=colour(name), markersize=5)  # so that a change of 0 is seen too
        axes.locator_params(axis="x", nbins=3)
        axes.grid(axis="x", color=LIGHT)
        axes.set_axisbelow(True)
        if len(shown) < sum(value is not None for value in changes[main]):
            axes.axhline(len(shown) / 2 - 0.5, color=GREY, linewidth=0.8, linestyle=":")
        describe(axes, title=label(name))
    labels = class_labels(classes)
    grid[0].set_yticks(rows, [labels[c] for c in shown], fontfamily=list(families()))
    grid[0].set_ylim(len(shown) - 0.4, -0.6)
    figure.supxlabel("accuracy minus the teacher's, points", fontsize=POINTS)
    return figure


def _points(change: Sequence[float | None], classes: Sequence[int]) -> list[float]:
    """Changes of these classes in percent points; one that is not defined is not drawn."""
    return [math.nan if (value := change[c]) is None else 100 * value for c in classes]


def reliability(calibration: Mapping[str, Calibration]) -> Figure | None:
    """Accuracy against confidence in bins with 95 % intervals, the models of the first seed.

    A line joins the bins that hold enough images to say something; the others are hollow.
    """
    names = [name for name in calibration if is_first(name)]
    if not names:
        return None
    figure, grid = panels(len(names), 3, 2.1, share=True)
    for number, (axes, name) in enumerate(zip(grid, names, strict=True)):
        axes.plot([0, 100], [0, 100], color=GREY, linewidth=0.8, linestyle="--")
        _bins(axes, name, calibration[name])
        axes.set_xticks([0, 50, 100])
        axes.set_yticks([0, 50, 100])
        axes.set_ylim(-3, 103)
        error = 100 * calibration[name].ece
        describe(axes, "confidence, %", "accuracy, %" if number % 3 == 0 else "", f"{name}, ECE {error:.1f} %")
    return figure


def _bins(axes: Axes, name: str, measured: Calibration) -> None:
    shade, joined = colour(name), []
    for part in measured.reliability:
        if part.confidence is None or part.accuracy is None:
            continue
        x, y, enough = 100 * part.confidence, 100 * part.accuracy, part.count >= ENOUGH
        low, high = wilson_interval(round(part.accuracy * part.count), part.count)
        axes.plot([x, x], [100 * low, 100 * high], color=shade, linewidth=0.8, alpha=0.9 if enough else 0.35)
        size = (6 if enough else 14) + 90 * part.count / measured.images
        face = shade if enough else "white"
        axes.scatter(x, y, s=size, color=face, edgecolors=shade, marker=marker(name), zorder=3, clip_on=False)
        joined += [(x, y)] if enough else []
    if joined:
        axes.plot(*zip(*joined, strict=True), color=shade, linewidth=0.8)


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
    ends = _window(models)
    for model, value in zip(models, aside(values), strict=True):
        low, top1, high = _percent(model)
        shade = colour(model.name)
        if ends and model.method == "teacher":
            beyond(axes, top1, value, ends, upright=True)
            continue
        axes.plot([value, value], [low, high], color=shade, linewidth=0.8, alpha=0.6)
        axes.plot(value, top1, marker(model.name), color=shade, markersize=6, alpha=0.9)
    if ends:
        axes.set_ylim(ends)
    axes.set_xscale("log")
    axes.set_xlim(min(values) / BESIDE, BESIDE * max(values))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(LogLocator(subs=subdivisions(values), numticks=6))
    axes.xaxis.set_major_formatter(lambda value, _: short(value))
    axes.grid(color=LIGHT)
    axes.set_axisbelow(True)


def subdivisions(values: Sequence[float]) -> tuple[int, ...]:
    """Of the decades of a logarithmic axis over these values: as many as half a page has room for."""
    decades = math.log10(max(values) / min(values)) + 2 * math.log10(BESIDE)
    return (1, 2, 5) if decades <= 1.3 else (1, 3) if decades <= 2.3 else (1,)


def aside(values: Sequence[float]) -> list[float]:
    """The values, with those that are nearly equal a little apart, so that no mark hides another."""
    placed: list[float] = []
    for value in values:
        same = sum(abs(other / value - 1) < NEARLY for other in values[: len(placed)])
        side = (same + 1) // 2 * (1 if same % 2 else -1)
        placed.append(value * APART**side)
    return placed


def short(value: float) -> str:
    """1,200,000 is `1.2M`; 0.25 stays."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"
