"""Figures of training: the paper's Figures 1 and 2, and all students side by side.

Each takes histories, lists of one dict an epoch, and gives None where they hold nothing to draw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from diagnostics.figures.style import LIGHT, POINTS, colour, describe, key, marker, panels
from diagnostics.names import is_first, method_of

History = Sequence[Mapping[str, float]]
TAPS = {"last": ("#D55E00", "o", "-"), "penultimate": ("#0072B2", "^", "--")}


def stage1(history: History) -> Figure | None:
    """Cosine of the projected pairs and CKA of the features by epoch of stage 1, at both taps."""
    if not any(name.startswith(("cosine_", "cka_")) for epoch in history for name in epoch):
        return None
    figure, grid = panels(2, 2, 2.5)
    for axes, (measure, title) in zip(
        grid, {"cosine": "cosine, projections", "cka": "linear CKA"}.items(), strict=True
    ):
        for tap, (shade, shape, line) in TAPS.items():
            _line(axes, history, f"{measure}_{tap}", 1, shade, shape, line, tap)
        _finish(axes)
        describe(axes, "epoch of stage 1", title)
    return figure


def stage2(history: History) -> Figure | None:
    """Top-1 on training and test images, and the losses, by epoch of stage 2."""
    if not history:
        return None
    figure, (left, right) = panels(2, 2, 2.5)
    looks = {"train": ("#0072B2", "^", "--"), "test": ("#D55E00", "o", "-")}
    _line(left, history, "top1", 100, *looks["train"], "training images")
    _line(left, history, "test_top1", 100, *looks["test"], "test images")
    _line(right, history, "loss", 1, *looks["train"], "objective, training")
    _line(right, history, "test_loss", 1, *looks["test"], "cross-entropy, test")
    for axes, title in ((left, "top-1, %"), (right, "loss")):
        _finish(axes)
        describe(axes, "epoch of stage 2", title)
    right.set_ylim(bottom=0)
    return figure


def by_epoch(curves: Mapping[str, History], before: Mapping[str, int]) -> Figure | None:
    """Test top-1 of every student and the learning rate of every training, by epoch.

    A student of several trainings begins where the one before its last ended. The rate is that at which an epoch
    began.

    before: epochs of the trainings before the last one, by method; a method that is not there has one training.
    """
    shown = [name for name, history in curves.items() if any("test_top1" in epoch for epoch in history)]
    shown = [name for name in shown if method_of(name) != "teacher"]
    if not shown:
        return None
    figure, (left, right) = panels(2, 2, 3.2)
    for name in shown:
        points = [
            (before.get(method_of(name), 0) + e["epoch"], 100 * e["test_top1"])
            for e in curves[name]
            if "test_top1" in e
        ]
        _curve(left, name, points)
    rated = [
        name for name, history in curves.items() if is_first(name) and any("learning_rate" in e for e in history)
    ]
    for name in rated:
        points = [
            (before.get(method_of(name), 0) + e["epoch"], e["learning_rate"])
            for e in curves[name]
            if e.get("learning_rate", 0.0) > 0
        ]
        _curve(right, name, points)
    if rated:
        right.set_yscale("log")
    for axes, title in ((left, "test top-1, %"), (right, "learning rate")):
        _finish(axes, legend=False)
        describe(axes, "epoch, stage 1 included", title)
    key(figure, list(dict.fromkeys([*(name for name in shown if is_first(name)), *rated])))
    return figure


def _curve(axes: Axes, name: str, points: Sequence[tuple[float, float]]) -> None:
    first = is_first(name)
    axes.plot(
        *zip(*points, strict=True),
        color=colour(name),
        marker=marker(name) if first else None,
        markersize=4,
        linewidth=1.4 if first else 0.7,
    )


def _line(
    axes: Axes, history: History, name: str, scale: float, shade: str, shape: str, line: str, text: str
) -> None:
    points = [(epoch["epoch"], scale * epoch[name]) for epoch in history if name in epoch]
    if points:
        axes.plot(
            *zip(*points, strict=True),
            color=shade,
            marker=shape,
            linestyle=line,
            markersize=4,
            linewidth=1,
            label=text,
        )


def _finish(axes: Axes, legend: bool = True) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color=LIGHT)
    if legend and axes.lines:
        axes.legend(fontsize=POINTS, frameon=False)
