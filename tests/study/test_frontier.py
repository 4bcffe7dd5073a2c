from __future__ import annotations

import itertools

import numpy as np
import pytest

from diagnostics.seeds import SeedSummary, summarise
from study.frontier import KINDS, LETTER, SIZE, Mark, frontier, marks, offsets, view_of, words
from study.results import SummaryRow

FOLLOWING = {"teacher": 0.2, "crd_kd": 0.4, "two_stage": 0.7, "head": 0.72, "mine": 0.41}


def row(method: str, **values: SeedSummary | None) -> SummaryRow:
    return SummaryRow({}, "", method, [0, 1, 2], values, {})


def some(spread: float = 0.01) -> list[SummaryRow]:
    """Each follows as FOLLOWING says, and is right on the rest."""
    steps = (-spread, 0, spread)
    return [
        row(m, following=summarise([f + s for s in steps]), unbiased=summarise([1 - f + s for s in steps]))
        for m, f in FOLLOWING.items()
    ]


def test_a_teacher_far_off_leaves_the_panel_to_the_students():
    def at(share: float) -> SeedSummary:
        return SeedSummary(3, share, 0.01, share - 0.01, share + 0.01, {})

    found = [Mark("teacher", "teacher", at(0.1), at(0.69))]
    found += [Mark(name, "staged", at(0.1 + n / 50), at(0.17 + n / 50)) for n, name in enumerate("abc")]
    view = view_of(found)
    assert view.across is None and view.up is not None and view.up[1] < 25
    assert view.place(found[0])[0] == 10 and view.up[0] < view.place(found[0])[1] < view.up[1]
    assert view.name(found[0]) == "teacher, in truth at (10.0, 69.0)" and view.name(found[1]) == "a"
    (axes,) = frontier({"": found}, {}).axes
    assert axes.get_ylim() == view.up
    assert view_of(found[:2]).up is None  # one student is not squeezed among others


def test_a_mark_is_the_mean_over_seeds_of_a_method_that_has_both_numbers():
    rows = [*some(), row("kd", following=None, unbiased=summarise([0.5])), row("plain")]
    found = marks(rows, ["crd_kd", "mine"])
    assert [mark.method for mark in found] == list(FOLLOWING)
    assert [mark.kind for mark in found] == ["teacher", "end to end", "staged", "staged", "end to end"]
    assert found[1].place == pytest.approx((40, 60))
    # half of the interval: 4.303 * 0.01 / 3 ** 0.5
    assert words({"": found[1:2]}) == (
        "Shown: crd_kd follows on 40.0 % (37.5 to 42.5), unbiased accuracy 60.0 % (57.5 to 62.5)."
    )
    assert words({"biased": found[:1], "unbiased": []}).startswith(
        "With a biased teacher: teacher follows on 20.0 %"
    )


def points(axes, marked: bool) -> list[tuple[float, float]]:
    """What is marked, or else the ends of lines."""
    lines = [line.get_xydata() for line in axes.lines if (line.get_marker() != "None") == marked]
    return rounded((x, y) for x, y in np.concatenate(lines).tolist() if x == x and y == y)


def rounded(pairs) -> list[tuple[float, float]]:
    return sorted((round(x, 6), round(y, 6)) for x, y in pairs)


def interval_ends(mark) -> list[tuple[float, float]]:
    x, y = mark.place
    across, up = mark.following, mark.unbiased
    return [(100 * across.low, y), (100 * across.high, y), (x, 100 * up.low), (x, 100 * up.high)]


def test_a_panel_an_arm_with_intervals_both_ways_and_a_line_between_twins():
    found = marks(some(), ["crd_kd", "mine"])
    figure = frontier({"biased": found, "unbiased": found[:2], "": []}, {"two_stage": "crd_kd", "head": "gone"})
    first, second = figure.axes
    assert [axes.get_title(loc="left") for axes in (first, second)] == ["biased teacher", "unbiased teacher"]
    assert points(first, marked=True) == rounded(mark.place for mark in found)
    ends = [end for mark in found for end in interval_ends(mark)]
    assert points(first, marked=False) == rounded([*ends, (70, 30), (40, 60)])
    assert points(second, marked=True) == rounded(mark.place for mark in found[:2])
    assert len(points(second, marked=False)) == 4 * 2
    (joined,) = [line for line in first.lines if line.get_marker() == "None" and len(line.get_xdata()) == 2]
    assert np.allclose(joined.get_xdata(), [70, 40]) and np.allclose(joined.get_ydata(), [30, 60])
    shapes = {line.get_marker() for line in first.lines} - {"None"}
    assert shapes == {marker for _, marker, _ in KINDS.values()}
    assert [text.get_text() for text in first.texts] == list(FOLLOWING)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [*KINDS, "twins"]
    assert frontier({"biased": []}, {}) is None


def test_one_seed_has_no_interval():
    figure = frontier({"": marks([row("kd", following=summarise([0.3]), unbiased=summarise([0.5]))], ["kd"])}, {})
    assert len(figure.axes[0].lines) == 1 and figure.axes[0].get_title(loc="left") == ""


def test_names_cover_neither_each_other_nor_marks_and_stay_in_the_panel():
    places = np.array([[50, 50], [54, 51], [50, 50], [190, 95], [120, 50]], dtype=float)
    names, room = ["two_stage", "crd_kd", "head", "instance", "kd"], np.array([0.0, 0, 200, 100])
    found = offsets(places, names, room)
    boxes = []
    for place, name, (x, y, _) in zip(places, names, found, strict=True):
        half = np.array([LETTER * len(name) / 2, SIZE * 0.6])
        boxes.append((place + (x, y) - half, place + (x, y) + half))
    for low, high in boxes:
        assert (low >= room[:2]).all() and (high <= room[2:]).all()
        assert not any(((low < place) & (place < high)).all() for place in places)
    for (low, high), (other_low, other_high) in itertools.combinations(boxes, 2):
        assert (np.minimum(high, other_high) <= np.maximum(low, other_low)).any()
    assert not found[-1][2]  # alone, so next to its mark
