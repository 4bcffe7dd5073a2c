"""Parts that all figures share: a colour and marker for each method, type size, panels, axes, files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from zlib import crc32

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from diagnostics.names import get_method, show_name

WIDTH = 6.5  # inches, the text width of a page
NARROW = 4.6  # of a figure with one panel, which a phone can show whole
POINTS = 9  # type size at that width
DPI = 150

# Okabe & Ito (2008): eight colours told apart with any colour vision; black comes first.
PALETTE = ("#000000", "#D55E00", "#0072B2", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#F0E442")
OTHERS = (  # for methods without a colour of their own, away from those
    *("#332288", "#999933", "#882255", "#AA4499", "#661100", "#17BECF"),
    *("#5B8F22", "#E73F74", "#6699CC", "#8C564B", "#44AA99", "#B39DDB"),
)
MARKERS = ("D", "o", "^", "s", "X", "P", "v", "*", "<", ">")
CLASSES = (*PALETTE, "#8A8A8A", "#882255")  # ten for the classes of a map
GREY, LIGHT = "#767676", "#D9D9D9"
METHODS = {  # the same in every figure; others look as their names decide, the same in every run
    "teacher": ("#000000", "D"),
    "two_stage": ("#D55E00", "o"),
    "student": ("#D55E00", "o"),
    "stage1": ("#CC79A7", "v"),
    "scratch": ("#56B4E9", "s"),
    "kd": ("#0072B2", "^"),
    "crd": ("#009E73", "P"),
    "crd_kd": ("#E69F00", "X"),
}
SQUEEZES = 1.0  # a teacher farther from the students than they are apart
LONGEST = 18  # characters of a class or layer name in a figure


def pick_colour(name: str) -> str:
    """Return the colour of a model's method."""
    return _find_look(get_method(name))[0]


def pick_marker(name: str) -> str:
    """Return the marker of a model's method."""
    return _find_look(get_method(name))[1]


def _find_look(method: str) -> tuple[str, str]:
    number = crc32(method.encode())
    return METHODS.get(method, (OTHERS[number % len(OTHERS)], MARKERS[number // len(OTHERS) % len(MARKERS)]))


def truncate_label(name: str) -> str:
    """Return a name as text in a figure: not too long, and without dollar signs that would start a formula."""
    short = name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"
    return short.replace("$", r"\$")


def label_model(name: str) -> str:
    """Return a model's name, or the label of its method, as text in a figure."""
    return truncate_label(show_name(name))


def make_panels(
    count: int, columns: int, height: float, share: bool = False, width: float = WIDTH
) -> tuple[Figure, list[Axes]]:
    """Make a figure of `count` panels in rows of `columns`, each row `height` inches."""
    columns = min(count, columns)
    rows = -(-count // columns)
    figure = Figure(figsize=(width, rows * height), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=share, sharey=share, squeeze=False).ravel().tolist()
    for axes in grid[count:]:
        axes.remove()
    for axes in grid[:count]:
        axes.tick_params(labelsize=POINTS, labelbottom=True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, grid[:count]


def describe(axes: Axes, x: str = "", y: str = "", title: str = "") -> None:
    """Label a panel."""
    axes.set_xlabel(x, fontsize=POINTS)
    axes.set_ylabel(y, fontsize=POINTS)
    axes.set_title(title, fontsize=POINTS, loc="left", y=1.0)  # where it would be: looking for it costs a tenth


def find_window(students: Sequence[Sequence[float]], teacher: Sequence[float]) -> tuple[float, float] | None:
    """Return the ends of an axis for two or more students alone, where a teacher far from them would squeeze them.

    Values are those of a mark and the ends of its interval; None where one axis does for all.
    """
    values = [value for student in students for value in student]
    if len(students) < 2 or not values or not teacher:
        return None
    low, high = min(values), max(values)
    span = high - low
    if span <= 0 or low - SQUEEZES * span <= min(teacher) and max(teacher) <= high + SQUEEZES * span:
        return None
    return low - 0.12 * span, high + 0.12 * span


def write_beyond(axes: Axes, value: float, place: float, ends: tuple[float, float]) -> None:
    """Write a teacher's value at the edge of an axis that ends before it, in its row at `place`."""
    high = value > ends[1]
    text, at = (f"{value:.1f} →", (1.0, place)) if high else (f"← {value:.1f}", (0.0, place))
    side, shade = "right" if high else "left", pick_colour("teacher")
    where = ("axes fraction", "data")
    axes.annotate(text, at, xycoords=where, ha=side, va="center", fontsize=POINTS, color=shade)


def draw_key(figure: Figure, names: Sequence[str]) -> None:
    """Draw a legend of models under the figure."""
    handles = [
        Line2D([], [], color=pick_colour(name), marker=pick_marker(name), markersize=5, label=label_model(name))
        for name in names
    ]
    columns = min(6 if figure.get_figwidth() > NARROW else 3, len(names))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=POINTS, frameon=False)


def place_panels(figure: Figure) -> None:
    """Place the panels once: matplotlib would do it, and draw for it, in each save."""
    engine = figure.get_layout_engine()
    if engine is None:
        return
    figure.set_dpi(DPI)
    engine.execute(figure)
    figure.set_layout_engine(None)


def to_bytes(figure: Figure, kind: str) -> bytes:
    """Return a figure as `png` or `pdf`, without a date, so that the same numbers give the same file."""
    place_panels(figure)
    buffer = io.BytesIO()
    metadata = {"Software": None} if kind == "png" else {"CreationDate": None}
    with rc_context({"pdf.fonttype": 42}):  # TrueType: many venues refuse matplotlib's own type 3
        figure.savefig(buffer, format=kind, dpi=DPI, metadata=metadata)
    return buffer.getvalue()
