"""Figures of what the models predict: who is right, how surely, and under corruption.

Each function takes a section of the report and returns a figure, or None where there is nothing to draw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diagnostics.calibration import Calibration
from diagnostics.comparison import compute_wilson_interval
from diagnostics.evaluation.results import ErrorRates, ModelAccuracy
from diagnostics.evaluation.runs import ModelOfRun
from diagnostics.figures.style import (
    GREY,
    LIGHT,
    NARROW,
    POINTS,
    describe,
    draw_key,
    find_window,
    label_model,
    make_panels,
    pick_colour,
    pick_marker,
    write_beyond,
)
from diagnostics.names import is_first

ENOUGH = 20  # images of a bin whose accuracy a line goes through


def draw_accuracy(models: Sequence[ModelAccuracy]) -> Figure | None:
    """Draw top-1 of each model with its Wilson interval, in percent.

    A teacher far from the students stands at the edge, as a number.
    """
    if not models:
        return None
    order = list(dict.fromkeys(model.method for model in models))
    models = sorted(models, key=lambda model: order.index(model.method))  # the seeds of a method together
    figure, (axes,) = make_panels(1, 1, 0.9 + 0.26 * len(models), width=NARROW)
    students = [list_bounds(model) for model in models if model.method != "teacher"]
    teacher = [value for model in models if model.method == "teacher" for value in list_bounds(model)]
    ends = find_window(students, teacher)
    for row, model in enumerate(models):
        if ends and model.method == "teacher":
            write_beyond(axes, 100 * model.top1, row, ends)
            continue
        _draw_interval(axes, model, row)
        top1 = 100 * model.top1
        axes.annotate(f"{top1:.1f}", (top1, row), (0, 5), textcoords="offset points", ha="center", fontsize=POINTS)
    if ends:
        axes.set_xlim(ends)
    _label_rows(axes, [model.name for model in models], top=-0.8)
    describe(axes, x="test top-1 in %, line: 95 % over test images (Wilson)")
    return figure


def draw_runs(models: Sequence[ModelOfRun]) -> Figure | None:
    """Draw top-1 of each model of the first seed with its Wilson interval, a panel a run, in percent."""
    shown = [row for row in models if is_first(row.accuracy.name)]
    if not shown:
        return None
    runs = list(dict.fromkeys(row.run for row in shown))
    methods = list(dict.fromkeys(row.accuracy.name for row in shown))
    figure, grid = make_panels(len(runs), 3, 0.9 + 0.24 * len(methods), share=True)
    for axes, run in zip(grid, runs, strict=True):
        for row in (row.accuracy for row in shown if row.run == run):
            _draw_interval(axes, row, methods.index(row.name))
        _label_rows(axes, methods, top=-0.5)
        describe(axes, x="test top-1, %", title=run.replace("$", r"\$"))
    return figure


def list_bounds(model: ModelAccuracy) -> tuple[float, float, float]:
    """Return lower end, top-1 and upper end in percent."""
    return 100 * model.low, 100 * model.top1, 100 * model.high


def _draw_interval(axes: Axes, model: ModelAccuracy, row: int) -> None:
    low, top1, high = list_bounds(model)
    axes.plot([low, high], [row, row], color=pick_colour(model.name), linewidth=1.6)
    axes.plot(top1, row, pick_marker(model.name), color=pick_colour(model.name), markersize=6)


def _label_rows(axes: Axes, names: Sequence[str], top: float) -> None:
    axes.set_yticks(range(len(names)), [label_model(name) for name in names], fontsize=POINTS)
    axes.set_ylim(len(names) - 0.5, top)
    axes.grid(axis="x", color=LIGHT)
    axes.set_axisbelow(True)


def draw_reliability(calibration: Mapping[str, Calibration]) -> Figure | None:
    """Draw accuracy against confidence in bins with 95 % intervals, the models of the first seed.

    A line joins the bins of at least `ENOUGH` images; the others are hollow.
    """
    names = [name for name in calibration if is_first(name)]
    if not names:
        return None
    figure, grid = make_panels(len(names), 3, 2.1, share=True)
    for number, (axes, name) in enumerate(zip(grid, names, strict=True)):
        axes.plot([0, 100], [0, 100], color=GREY, linewidth=0.8, linestyle="--")
        _draw_bins(axes, name, calibration[name])
        axes.set_xticks([0, 50, 100])
        axes.set_yticks([0, 50, 100])
        axes.set_ylim(-3, 103)
        title = f"{label_model(name)}, ECE {100 * calibration[name].ece:.1f} %"
        describe(axes, "confidence, %", "accuracy, %" if number % 3 == 0 else "", title)
    return figure


def _draw_bins(axes: Axes, name: str, measured: Calibration) -> None:
    shade, joined = pick_colour(name), []
    for part in measured.reliability:
        if part.confidence is None or part.accuracy is None:
            continue
        x, y, enough = 100 * part.confidence, 100 * part.accuracy, part.count >= ENOUGH
        low, high = compute_wilson_interval(round(part.accuracy * part.count), part.count)
        axes.plot([x, x], [100 * low, 100 * high], color=shade, linewidth=0.8, alpha=0.9 if enough else 0.35)
        size = (6 if enough else 14) + 90 * part.count / measured.images
        face = shade if enough else "white"
        axes.scatter(x, y, s=size, color=face, edgecolors=shade, marker=pick_marker(name), zorder=3, clip_on=False)
        joined += [(x, y)] if enough else []
    if joined:
        axes.plot(*zip(*joined, strict=True), color=shade, linewidth=0.8)


def draw_corruptions(errors: Mapping[str, ErrorRates]) -> Figure | None:
    """Draw the error under each corruption by severity."""
    names = [name for name in errors if is_first(name)]
    if not names:
        return None
    kinds = list(errors[names[0]])
    figure, grid = make_panels(len(kinds), 3, 1.9, share=True)
    for number, (axes, kind) in enumerate(zip(grid, kinds, strict=True)):
        for name in names:
            rates, look = [100 * rate for rate in errors[name][kind]], pick_marker(name)
            axes.plot(
                range(1, 6), rates, marker=look, color=pick_colour(name), markersize=4, linewidth=1, alpha=0.9
            )
        axes.set_xticks(range(1, 6))
        axes.grid(axis="y", color=LIGHT)
        describe(axes, "severity", "error, %" if number % 3 == 0 else "", kind.replace("_", " "))
    grid[0].set_ylim(0, max(100 * rate for name in names for rates in errors[name].values() for rate in rates) + 3)
    draw_key(figure, names)
    return figure
