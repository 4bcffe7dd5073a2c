"""Figures of a study: following and accuracy of each method, inheritance, and images on which a cue is followed.

A place is a group of points that differ in the teacher's arm alone. Letters: E examples, S side in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from diagnostics.figures.fonts import can_draw, families
from diagnostics.figures.style import GREY, LIGHT, NARROW, POINTS, beyond, describe, label, panels, window
from diagnostics.seeds import SeedSummary
from diagnostics.shortcut.measures import Shown
from study.fitness import TEACHER
from study.results import InheritanceRow, SummaryRow

ARMS = {  # colour, marker and filling: told apart without colours too
    "biased": ("#D55E00", "o", "#D55E00"),
    "unbiased": ("#0072B2", "s", "white"),
    "": ("#000000", "D", "#000000"),
}
TITLES = {"following": "cue following", "unbiased": "unbiased accuracy", "top1": "test top-1"}
BAR, STATED_BAR = "#B5CDE0", "#0072B2"
MOST_EXAMPLES = 8
SHORT = 14  # characters of a class above an example


def dots(arms: Mapping[str, Sequence[SummaryRow]], names: Sequence[str]) -> Figure | None:
    """Draw each method's numbers with their intervals over seeds, a panel a number, the teacher's arm as colour.

    A teacher so far from the students that it would squeeze them stands at the edge, in words.

    arms: rows of the study's summary by the teacher's arm, "" where the grid has none. names: keys of TITLES.
    """
    methods = list(dict.fromkeys(row.method for rows in arms.values() for row in rows))
    if not methods:
        return None
    height = 1.15 + 0.24 * len(methods)
    figure, grid = panels(len(names), 2, height, width=NARROW)
    for number, (axes, name) in enumerate(zip(grid, names, strict=True)):
        if name == "following":
            axes.axvline(0, color=GREY, linewidth=0.8)
        ends = _window([row for rows in arms.values() for row in rows], name)
        for place, (arm, rows) in enumerate(arms.items()):
            shift = 0.3 * ((place + 0.5) / len(arms) - 0.5)
            shown = {}
            for row in rows:
                height, summary = methods.index(row.method) + shift, row.values.get(name)
                if ends and row.method == TEACHER and summary is not None:
                    beyond(axes, 100 * summary.mean, height, ends)
                else:
                    shown[height] = summary
            _dots(axes, shown, arm)
        _method_rows(axes, methods, named=number == 0)
        left, right = ends or axes.get_xlim()
        axes.set_xlim(max(left, -3), min(right, 103))  # intervals over few seeds may leave 0 to 100
        axes.grid(axis="x", color=LIGHT)
        axes.locator_params(axis="x", nbins=5)
        describe(axes, x="%", title=TITLES[name])
    if list(arms) != [""]:
        handles = [_handle(arm) for arm in arms]
        figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=POINTS, frameon=False)
    return figure


def _window(rows: Sequence[SummaryRow], name: str) -> tuple[float, float] | None:
    """Return ends of an axis in percent for the students alone, None where it holds the teachers too."""
    students, teachers = [], []
    for row in rows:
        summary = row.values.get(name)
        if summary is not None and row.method == TEACHER:
            teachers.append(100 * summary.mean)
        elif summary is not None:
            given = (summary.low, summary.mean, summary.high)
            students.append([100 * value for value in given if value is not None])
    return window(students, teachers)


def inheritance(rows: Sequence[InheritanceRow], stated: Sequence[str]) -> Figure | None:
    """Draw bars from 0, none of the teachers' difference inherited, with intervals; `stated` are darker."""
    if not rows:
        return None
    methods = [row.method for row in rows]
    figure, (axes,) = panels(1, 1, 0.95 + 0.24 * len(rows), width=NARROW)
    for number, row in enumerate(rows):
        if row.value is None:
            axes.annotate(" not defined", (0, number), va="center", fontsize=POINTS, color=GREY)
            continue
        axes.barh(number, row.value, 0.62, color=STATED_BAR if row.method in stated else BAR)
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [number, number], color="black", linewidth=1.3)
    for value in (0, 1):
        axes.axvline(value, color=GREY, linewidth=0.8, linestyle="-" if value == 0 else ":")
    _method_rows(axes, methods, named=True)
    describe(axes, x="0: nothing, 1: all of the teachers' difference", title="inheritance")
    return figure


@dataclass(frozen=True)
class Examples:
    """Test images under another class's cue, with the label and each model's answer.

    pixels (E, 3, S, S) uint8, labels E names of classes, answers: E names of classes by model, place: in words.
    """

    pixels: NDArray[np.uint8]
    labels: Sequence[str]
    answers: Mapping[str, Sequence[str]]
    place: str


def followed(teacher: Shown, student: Shown, most: int = MOST_EXAMPLES) -> tuple[list[int], list[int]]:
    """Return images and columns of at most `most` conflicting shows on which both follow the cue, an image once.

    Images lie evenly apart in the test set; from one to the next the choice among an image's shows moves on.
    """
    both = teacher.fooled & student.follows  # (n, J)
    images = np.flatnonzero(both.any(axis=1))
    chosen = images[np.linspace(0, len(images) - 1, min(most, len(images))).round().astype(int)].tolist()
    shows = [np.flatnonzero(both[image]) for image in chosen]
    return chosen, [int(columns[number % len(columns)]) for number, columns in enumerate(shows)]


def examples(shown: Examples) -> Figure | None:
    """Draw the images of `followed`; above each its label and the answers."""
    if not len(shown.labels):
        return None
    lines = 1 + len(shown.answers)
    figure, grid = panels(len(shown.labels), 4, 1.25 + 0.17 * lines)
    for number, axes in enumerate(grid):
        axes.imshow(shown.pixels[number].transpose(1, 2, 0), interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        answers = [f"{name}: {_short(given[number])}" for name, given in shown.answers.items()]
        describe(axes, title="\n".join([f"is {_short(shown.labels[number])}", *answers]))
        axes.set_title(axes.get_title(loc="left"), fontsize=POINTS, loc="left", fontfamily=list(families()))
    return figure


def _dots(axes: Axes, shown: Mapping[float, SeedSummary | None], arm: str) -> None:
    """Draw marks and intervals at their heights: one line for all of either, as each artist costs time."""
    colour, marker, face = ARMS[arm]
    found = [(height, summary) for height, summary in shown.items() if summary is not None]
    bounded = [
        (height, one.low, one.high) for height, one in found if one.low is not None and one.high is not None
    ]
    axes.plot(
        [100 * end for _, low, high in bounded for end in (low, high, math.nan)],
        [end for height, _, _ in bounded for end in (height, height, math.nan)],
        color=colour,
        linewidth=1.3,
    )
    axes.plot(
        [100 * summary.mean for _, summary in found],
        [height for height, _ in found],
        marker,
        color=colour,
        markerfacecolor=face,
        markersize=5,
    )


def _method_rows(axes: Axes, methods: Sequence[str], named: bool) -> None:
    if named:
        axes.set_yticks(range(len(methods)), [label(method) for method in methods])
    else:
        axes.set_yticks([])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(methods) - 0.5, -0.5)
    axes.set_axisbelow(True)


def _handle(arm: str) -> Line2D:
    colour, marker, face = ARMS[arm]
    return Line2D([], [], color=colour, marker=marker, markerfacecolor=face, markersize=5, label=f"{arm} teacher")


def _short(name: str) -> str:
    if not can_draw(name):
        return "(see the page)"
    return label(name if len(name) <= SHORT else name[: SHORT - 1] + "…")
