from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from diagnostics.seeds import SeedSummary, summarise
from study.figures import plot_accuracy, plot_frontier
from study.report import make_report
from study.results import SummaryRow
from tests.study.test_report import POINTS, make_context, make_records

FOLLOWING = {"teacher": 0.2, "crd_kd": 0.4, "two_stage": 0.7, "head": 0.72, "mine": 0.41}


def make_rows_report(rows, **changes):
    """Return a report that has these rows."""
    report = make_report(make_records(1, POINTS[-1:]), make_context(make_records(1, POINTS[-1:])))
    points = list(dict.fromkeys(row.label for row in rows))
    return replace(report, summary=rows, points=points, methods=list({row.method: 0 for row in rows}), **changes)


def make_rows(label="all", spread=0.01):
    """Each follows as FOLLOWING says, and is right on the rest."""
    steps = (-spread, 0, spread)
    return [
        SummaryRow(
            {},
            label,
            method,
            [0, 1, 2],
            {
                "following": summarise([share + step for step in steps]),
                "unbiased": summarise([1 - share + step for step in steps]),
                "top1": summarise([share + step for step in steps]),
            },
            {},
        )
        for method, share in FOLLOWING.items()
    ]


def list_marks(axes):
    marked = [line.get_xydata() for line in axes.lines if line.get_marker() not in ("None", "_", "|")]
    return sorted((round(x, 6), round(y, 6)) for x, y in np.concatenate(marked).tolist())


def test_frontier_has_a_panel_a_point() -> None:
    rows = [*make_rows("a 1"), *make_rows("a 2")[:2]]
    end_to_end = ["crd_kd", "mine"]
    twins = {"two_stage": "crd_kd", "head": "gone"}
    figure = plot_frontier(make_rows_report(rows, twins=twins, end_to_end=end_to_end))
    first, second = figure.axes
    assert [axes.get_title(loc="left") for axes in (first, second)] == ["a 1", "a 2"]
    assert list_marks(first) == sorted((round(100 * f, 6), round(100 - 100 * f, 6)) for f in FOLLOWING.values())
    assert len(list_marks(second)) == 2
    (joined,) = [line for line in first.lines if len(line.get_xdata()) == 2]
    assert np.allclose(joined.get_xdata(), [70, 40]) and np.allclose(joined.get_ydata(), [30, 60])
    intervals = np.concatenate([collection.get_segments()[0] for collection in first.collections])
    half = 4.302653 / 3**0.5  # of t with two degrees of freedom
    assert {(round(40 - half, 3), 60.0), (40.0, round(60 + half, 3))} <= {tuple(end) for end in intervals.round(3)}
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    hollow = [line.get_label() for line in figure.legends[0].get_lines() if line.get_markerfacecolor() == "none"]
    assert legend == list(FOLLOWING) and hollow == end_to_end


def test_a_far_teacher_does_not_squeeze_students() -> None:
    def make_summary(share):
        return SeedSummary(3, share, 0.01, share - 0.01, share + 0.01, {})

    places = {"teacher": (0.1, 0.69), **{name: (0.1 + n / 50, 0.17 + n / 50) for n, name in enumerate("abc")}}
    rows = [
        SummaryRow({}, "", name, [0], {"following": make_summary(x), "unbiased": make_summary(y)}, {})
        for name, (x, y) in places.items()
    ]
    (axes,) = plot_frontier(make_rows_report(rows)).axes
    assert axes.get_ylim()[1] < 25 and axes.get_title(loc="left") == "teacher outside, at 10.0 and 69.0 %"
    (axes,) = plot_frontier(make_rows_report(rows[:2])).axes
    assert axes.get_ylim()[1] > 69  # one student is not squeezed among others


def test_methods_without_both_numbers_are_left_out() -> None:
    rows = [replace(row, values={**row.values, "unbiased": None}) for row in make_rows()]
    assert plot_frontier(make_rows_report(rows)) is None
    one = [replace(make_rows()[1], values={"following": summarise([0.3]), "unbiased": summarise([0.5])})]
    assert list_marks(plot_frontier(make_rows_report(one)).axes[0]) == [(30, 50)]


def test_accuracy_has_a_line_a_method_over_points() -> None:
    (axes,) = plot_accuracy(make_rows_report([*make_rows("slow"), *make_rows("fast")])).axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["slow", "fast"]
    lines = [line.get_ydata() for line in axes.lines]
    assert [list(line) for line in lines] == [pytest.approx([100 * share] * 2) for share in FOLLOWING.values()]
