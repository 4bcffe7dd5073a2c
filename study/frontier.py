"""The figure of cue following against unbiased accuracy: which method follows the cue less at which accuracy.

Letters: M marks. Positions of labels are in points (1/72 inch) from the lower left corner of the figure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from diagnostics.figures.style import GREY, LIGHT, POINTS, describe, label, lay_out, panels, window
from diagnostics.seeds import SeedSummary, plain_number
from study.fitness import TEACHER
from study.results import SummaryRow

HEIGHT = 3.6  # inches a panel
SIZE = 7.5  # type size of a mark's name
LETTER = 0.58 * SIZE  # width of a letter of a name
KINDS = {  # colour, marker and size, told apart without colours too
    "teacher": ("#000000", "*", 13.0),
    "end to end": ("#0072B2", "s", 5.0),
    "staged": ("#D55E00", "o", 5.5),
}
ANGLES = np.deg2rad([45, 315, 135, 225, 90, 270, 0, 180])  # intervals run along the last four
DISTANCES = (4.0, 10.0, 18.0, 28.0, 42.0)  # of a name from its mark
NEAR = 10.0  # farther ones get a line
SPOT = 4.0  # half the side of a mark

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """What a panel shows in percent: None for an axis that holds all marks; a teacher beyond is at its edge."""

    across: tuple[float, float] | None
    up: tuple[float, float] | None

    def place(self, mark: Mark) -> tuple[float, float]:
        x, y = (_within(*pair) for pair in zip(mark.place, (self.across, self.up), strict=True))
        return x, y

    def name(self, mark: Mark) -> str:
        """Return a mark's name, with its numbers where it does not stand at them."""
        x, y = mark.place
        if self.place(mark) == (x, y):
            return label(mark.method)
        return f"{label(mark.method)}, in truth at ({plain_number(x, 1)}, {plain_number(y, 1)})"


@dataclass(frozen=True)
class Mark:
    """A method at one point of the grid, following and unbiased accuracy over seeds."""

    method: str
    kind: str  # a key of KINDS
    following: SeedSummary
    unbiased: SeedSummary

    @property
    def place(self) -> tuple[float, float]:
        """In percent."""
        return 100 * self.following.mean, 100 * self.unbiased.mean

    @property
    def words(self) -> str:
        following, unbiased = _words(self.following), _words(self.unbiased)
        return f"{self.method} follows on {following}, unbiased accuracy {unbiased}"


def marks(rows: Sequence[SummaryRow], end_to_end: Collection[str]) -> list[Mark]:
    """Return the methods that have both numbers; `end_to_end` names those that are trained at once."""
    found = []
    for row in rows:
        following, unbiased = row.values.get("following"), row.values.get("unbiased")
        kind = TEACHER if row.method == TEACHER else "end to end" if row.method in end_to_end else "staged"
        if following is not None and unbiased is not None:
            found.append(Mark(row.method, kind, following, unbiased))
    return found


def frontier(arms: Mapping[str, Sequence[Mark]], twins: Mapping[str, str]) -> Figure | None:
    """Draw a panel for each arm of the teacher, "" where the grid has none; None without a mark.

    twins: staged method -> end-to-end method, which a thin line joins.
    """
    shown = {arm: found for arm, found in arms.items() if found}
    if not shown:
        return None
    figure, grid = panels(len(shown), 1, HEIGHT)
    for axes, (arm, found) in zip(grid, shown.items(), strict=True):
        _draw(axes, {mark.method: mark for mark in found}, twins, view_of(found))
        describe(axes, "cue following, %", "unbiased accuracy, %", f"{arm} teacher" if arm else "")
    kinds = [kind for kind in KINDS if any(mark.kind == kind for found in shown.values() for mark in found)]
    handles = [_handle(kind) for kind in kinds]
    joined = any(
        {first, second} <= {m.method for m in f} for f in shown.values() for first, second in twins.items()
    )
    if joined:
        handles.append(Line2D([], [], color=GREY, linewidth=0.8, label="twins"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=POINTS, frameon=False)
    lay_out(figure)  # so that the panels have their places
    for axes, found in zip(grid, shown.values(), strict=True):
        _name(axes, found)
    return figure


def view_of(found: Sequence[Mark]) -> View:
    """Return the part of a panel that the students need, where a teacher far off would squeeze them."""
    students = [mark for mark in found if mark.kind != TEACHER]
    teachers = [mark for mark in found if mark.kind == TEACHER]
    across = window([_ends(m.following) for m in students], [100 * m.following.mean for m in teachers])
    up = window([_ends(m.unbiased) for m in students], [100 * m.unbiased.mean for m in teachers])
    return View(across, up)


def _ends(summary: SeedSummary) -> list[float]:
    return [100 * summary.mean, *(_interval(summary) or [])]


def _within(value: float, ends: tuple[float, float] | None) -> float:
    if ends is None or ends[0] <= value <= ends[1]:
        return value
    margin = 0.05 * (ends[1] - ends[0])
    return min(max(value, ends[0] + margin), ends[1] - margin)


def words(arms: Mapping[str, Sequence[Mark]]) -> str:
    """Return the numbers of the figure as text, for who does not see it."""
    parts = [
        f"{f'With a {arm} teacher' if arm else 'Shown'}: {'; '.join(mark.words for mark in found)}."
        for arm, found in arms.items()
        if found
    ]
    return " ".join(parts)


def _draw(axes: Axes, found: Mapping[str, Mark], twins: Mapping[str, str], view: View) -> None:
    axes.grid(color=LIGHT, linewidth=0.6)
    axes.set_axisbelow(True)
    for first, second in twins.items():
        if first in found and second in found:
            ends = np.array([found[first].place, found[second].place])
            axes.plot(ends[:, 0], ends[:, 1], color=GREY, linewidth=0.8, zorder=1.5)
    for kind in KINDS:
        _draw_kind(axes, kind, [mark for mark in found.values() if mark.kind == kind], view)
    axes.margins(0.08)
    left, right = axes.get_xlim()
    low, high = axes.get_ylim()
    left, right = view.across or (left, right)
    low, high = view.up or (low, high)
    axes.set_xlim(max(left, -5), min(right, 105))  # margins need little room beyond 0 and 100
    axes.set_ylim(max(low, -5), min(high, 105))


def _draw_kind(axes: Axes, kind: str, found: Sequence[Mark], view: View) -> None:
    """Draw marks of one kind and their intervals: one line of all that lie alike, as each artist costs time."""
    colour, marker, size = KINDS[kind]
    across, up = [], []  # ends of intervals and a gap behind each
    for mark in found:
        (x, y), along, upright = view.place(mark), _interval(mark.following), _interval(mark.unbiased)
        if (x, y) != mark.place:
            continue  # at an edge, not at its numbers
        across += [(end, y) for end in (*along, np.nan)] if along else []
        up += [(x, end) for end in (*upright, np.nan)] if upright else []
    for ends in (across, up):
        if ends:
            axes.plot(*np.transpose(ends), color=colour, linewidth=0.8, alpha=0.4)
    if found:
        axes.plot(
            *np.transpose([view.place(mark) for mark in found]),
            marker,
            color=colour,
            markersize=size,
            markeredgecolor="white",
            markeredgewidth=0.5,
            zorder=2.5 if kind == TEACHER else 3,
        )


def _name(axes: Axes, found: Sequence[Mark]) -> None:
    """Write each name where it covers least, next to its mark or with a line to it."""
    scale = 72 / axes.figure.dpi
    view = view_of(found)
    places = axes.transData.transform([view.place(mark) for mark in found]) * scale  # (M, 2)
    room = np.array(axes.bbox.extents) * scale
    names = [view.name(mark) for mark in found]
    line = {"arrowstyle": "-", "color": GREY, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2}
    for mark, name, (x, y, far) in zip(found, names, offsets(places, names, room), strict=True):
        text = axes.annotate(
            name,
            view.place(mark),
            xytext=(x, y),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=SIZE,
            color=KINDS[mark.kind][0],
            arrowprops=line if far else None,
        )
        text.set_path_effects([withStroke(linewidth=2, foreground="white")])
        text.set_in_layout(False)


def offsets(places: Floats, names: Sequence[str], room: Floats) -> list[tuple[float, float, bool]]:
    """Return the way from each mark to the middle of its name in points, and whether that needs a line.

    One name after the other takes, of some places around its mark, the one that covers least of other marks and
    names and lies within the panel; near ones win.

    Args:
        places: (M, 2) of the marks.
        room: (4,) left, low, right and high end of the panel.
    """
    dots = np.hstack([places - SPOT, places + SPOT])  # (M, 4)
    taken: list[Floats] = []
    found = []
    for place, name in zip(places, names, strict=True):
        half = np.array([LETTER * len(name) / 2, SIZE * 0.6])
        others = np.vstack([dots, *taken])
        best: tuple[float, float, float, bool] | None = None
        for distance in DISTANCES:
            for angle in ANGLES:
                way = np.array([np.cos(angle), np.sin(angle)])
                shift = way * distance + np.where(np.abs(way) > 0.1, np.sign(way), 0) * half
                box = np.concatenate([place + shift - half, place + shift + half])
                outside = np.maximum(room[:2] - box[:2], 0).sum() + np.maximum(box[2:] - room[2:], 0).sum()
                covered = float(_overlap(box, others).sum())
                cost = covered + 10 * float(outside) + 0.3 * distance
                if best is None or cost < best[0]:
                    best = cost, float(shift[0]), float(shift[1]), distance > NEAR
        assert best is not None
        found.append(best[1:])
        middle = place + best[1:3]
        taken.append(np.concatenate([middle - half, middle + half]))
    return found


def _overlap(box: Floats, others: Floats) -> Floats:
    """Return area that a box (left, low, right, high) shares with each of the others (N, 4), (N,)."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    return np.asarray(np.prod(np.maximum(sides, 0), axis=1))


def _interval(summary: SeedSummary) -> list[float] | None:
    return None if summary.low is None or summary.high is None else [100 * summary.low, 100 * summary.high]


def _handle(kind: str) -> Line2D:
    colour, marker, size = KINDS[kind]
    return Line2D([], [], color=colour, marker=marker, linestyle="none", markersize=size, label=kind)


def _words(summary: SeedSummary) -> str:
    text = f"{plain_number(100 * summary.mean, 1)} %"
    interval = _interval(summary)
    return f"{text} ({plain_number(interval[0], 1)} to {plain_number(interval[1], 1)})" if interval else text
