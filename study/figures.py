"""Figures of a study: cue following against accuracy, and accuracy by point."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from diagnostics.figures.style import (
    GREY,
    LIGHT,
    NARROW,
    POINTS,
    describe,
    find_window,
    make_panels,
    pick_colour,
    pick_marker,
    truncate_label,
)
from diagnostics.seeds import SeedSummary, format_number
from study.grid import trim_labels
from study.measurements import TEACHER
from study.reported import StudyReport

FIGURES = {
    "frontier": "Cue following against unbiased accuracy, a panel a point. Better is up and to the left.",
    "accuracy": "Test top-1 of each method at every point of the grid.",
}
Places = dict[str, tuple[SeedSummary, SeedSummary]]  # following and unbiased accuracy by method
HEIGHT = 3.2  # inches a panel
MOST_PANELS = 6  # of the frontier; the tables have all points


def draw_figures(report: StudyReport) -> dict[str, Figure]:
    """Draw figures by name; one without numbers is left out."""
    drawn = {"frontier": plot_frontier(report), "accuracy": None if report.planted else plot_accuracy(report)}
    return {name: figure for name, figure in drawn.items() if figure is not None}


def plot_frontier(report: StudyReport) -> Figure | None:
    """Draw unbiased accuracy against cue following, a panel a point, twins joined."""
    places = {point: _find_places(report, point) for point in report.points}
    shown = [(point, found) for point, found in places.items() if found][:MOST_PANELS]
    if not shown:
        return None
    headings = trim_labels([point for point, _ in shown])
    figure, grid = make_panels(len(shown), 2, HEIGHT)
    for axes, (point, found) in zip(grid, shown, strict=True):
        _plot_places(axes, found, report)
        title = textwrap.fill(headings[point], 40) if len(report.points) > 1 else ""
        parts = [title, _set_limits(axes, found)]
        describe(axes, "cue following, %", "unbiased accuracy, %", "\n".join(filter(None, parts)))
    methods = list(dict.fromkeys(method for _, found in shown for method in found))
    _add_legend(figure, methods, report.end_to_end)
    return figure


def _plot_places(axes: Axes, found: Places, report: StudyReport) -> None:
    for method, (following, unbiased) in found.items():
        axes.errorbar(
            100 * following.mean,
            100 * unbiased.mean,
            xerr=_get_error(following),
            yerr=_get_error(unbiased),
            fmt=pick_marker(method),
            color=pick_colour(method),
            markerfacecolor="none" if method in report.end_to_end else pick_colour(method),
            markersize=5,
            elinewidth=0.8,
        )
    for pair in report.twins.items():
        if set(pair) <= found.keys():
            x, y = ([100 * found[method][number].mean for method in pair] for number in range(2))
            axes.add_line(Line2D(x, y, color=GREY, linewidth=0.8, zorder=1))
    axes.grid(color=LIGHT)


def _set_limits(axes: Axes, found: Places) -> str:
    """Limit axes to the students if the teacher is far off; return its place."""
    text = ""
    for number, axis in enumerate("xy"):
        students = [_get_ends(pair[number]) for method, pair in found.items() if method != TEACHER]
        teachers = [100 * pair[number].mean for method, pair in found.items() if method == TEACHER]
        ends = find_window(students, teachers)
        if ends is not None:
            axes.set(**{f"{axis}lim": ends})
            x, y = (format_number(100 * one.mean, 1) for one in found[TEACHER])
            text = f"teacher outside, at {x} and {y} %"
    return text


def plot_accuracy(report: StudyReport) -> Figure | None:
    """Draw the test top-1 of each method at every point, with intervals over seeds."""
    figure, (axes,) = make_panels(1, 1, HEIGHT, width=NARROW)
    for method in report.methods:
        rows = [row for row in report.summary if row.method == method and row.values.get("top1")]
        summaries = [row.values["top1"] for row in rows]
        known = [(report.points.index(row.label), one) for row, one in zip(rows, summaries, strict=True) if one]
        if known:
            axes.errorbar(
                [x for x, _ in known],
                [100 * one.mean for _, one in known],
                yerr=np.hstack([_get_error(one) for _, one in known]),
                color=pick_colour(method),
                fmt=f"{pick_marker(method)}-",
                markersize=5,
            )
    axes.set_xticks(range(len(report.points)), [truncate_label(point) for point in report.points])
    axes.grid(color=LIGHT)
    describe(axes, y="test top-1, %")
    _add_legend(figure, report.methods)
    return figure


def _add_legend(figure: Figure, methods: Sequence[str], hollow: Sequence[str] = ()) -> None:
    handles = [
        Line2D(
            [],
            [],
            color=pick_colour(method),
            marker=pick_marker(method),
            markerfacecolor="none" if method in hollow else pick_colour(method),
            markersize=5,
            label=truncate_label(method),
        )
        for method in methods
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=POINTS, frameon=False)


def _find_places(report: StudyReport, point: str) -> Places:
    """Return the methods of a point that have both numbers."""
    rows = [row for row in report.summary if row.label == point]
    pairs = {row.method: (row.values.get("following"), row.values.get("unbiased")) for row in rows}
    return {method: (a, b) for method, (a, b) in pairs.items() if a is not None and b is not None}


def _get_error(summary: SeedSummary) -> NDArray[np.float64]:
    """Return an interval's lengths below and above its mean in points, (2, 1)."""
    low, high = (summary.mean if end is None else end for end in (summary.low, summary.high))
    return 100 * np.array([[summary.mean - low], [high - summary.mean]])


def _get_ends(summary: SeedSummary) -> list[float]:
    bounds = (summary.low, summary.mean, summary.high)
    return [100 * bound for bound in bounds if bound is not None]
