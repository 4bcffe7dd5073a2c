"""Tables of linear probes: what features of each model are worth on another data set."""

from __future__ import annotations

from collections.abc import Sequence

from diagnostics.evaluation.results import Probe, ProbedModel
from diagnostics.tables.comparison import PAIRS
from diagnostics.tables.table import (
    MODEL,
    NO_TEACHER,
    PAIR,
    Cell,
    Column,
    Table,
    format_percent,
    format_points,
    format_whole,
    read_row,
    show_p,
)

NO_PROBE = "None yet: main_eval.py RUN_DIR --probe DATA makes one."
OF_TEACHER = "The teacher itself."
AT_EDGE = "At the end of the grid: a strength beyond it may be better."
NOT_CONVERGED = "The fit stopped at its limit of iterations."
DATA = Column("data", "images of")
PROBE = (
    MODEL,
    DATA,
    Column("top1", "top-1, % [95 % over test images]", format_percent(), interval=True),
    Column("less_teacher", "less teacher, points", format_points()),
    Column("holm_p", "Holm p", show_p),
    Column("strength", "L2", lambda value: f"{value:g}"),
    Column("features", "features", format_whole),
)
PROBE_PAIRS = (*PAIR, DATA, *PAIRS[len(PAIR) :])


def describe_probe(probe: Probe) -> str:
    """Return the images of a probe, and how its strengths were chosen, in two sentences."""
    grid = f"{max(probe.strengths):g} to {min(probe.strengths):g}"
    return (
        f"Linear probe on {probe.data}: {probe.train_images:,} training and {probe.test_images:,} test images of "
        f"{probe.classes} classes at {probe.image_size} pixels. L2 of {grid}, chosen on {probe.held_out_images:,} "
        "held-out training images."
    )


def make_probe_table(probes: Sequence[Probe]) -> Table:
    """Return the top-1 of a linear classifier on the features of each model."""
    rows = [_read_model(probe, model) for probe in probes for model in probe.models]
    caption = (
        "A linear classifier on the frozen features of each model, on another data set; Holm p of the teacher."
    )
    return Table("probe", caption, PROBE, rows, NO_PROBE)


def _read_model(probe: Probe, model: ProbedModel) -> list[Cell]:
    found = model.accuracy
    teacher = next((one.accuracy for one in probe.models if one.accuracy.method == "teacher"), None)
    pair = next((row for row in probe.pairs if teacher and {row.a, row.b} == {teacher.name, found.name}), None)
    why = NO_TEACHER if teacher is None else OF_TEACHER
    less = Cell(None, note=why) if teacher is None or pair is None else Cell(found.top1 - teacher.top1)
    note = AT_EDGE if model.strength in (probe.strengths[0], probe.strengths[-1]) else ""
    return [
        Cell(found.name),
        Cell(probe.data),
        Cell(found.top1, found.low, found.high, "" if model.converged else NOT_CONVERGED),
        less,
        Cell(None, note=why) if pair is None else Cell(pair.holm_p),
        Cell(model.strength, note=note),
        Cell(model.features),
    ]


def make_probe_pairs_table(probes: Sequence[Probe]) -> Table:
    """Return the paired tests between probed models."""
    rows = [read_row([row.a, row.b, probe.data], row, PROBE_PAIRS) for probe in probes for row in probe.pairs]
    caption = (
        "Linear probes: accuracy difference with 95 % bootstrap interval over test images, and McNemar's test."
    )
    return Table("probe_pairs", caption, PROBE_PAIRS, rows, NO_PROBE)
