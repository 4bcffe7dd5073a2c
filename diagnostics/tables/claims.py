"""Tables of the paper's claims: ensembles, gaps between training and test images, spread, steadiness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from diagnostics.evaluation.results import Ensemble, VariancesCompared
from diagnostics.generalisation import Gap
from diagnostics.names import method_of
from diagnostics.stability import Stability
from diagnostics.tables.table import (
    MODEL,
    Cell,
    Column,
    Table,
    decimals,
    difference_cell,
    grouped,
    percent,
    signed,
)
from diagnostics.variance import GIVEN_RATIO

NOT_LISTED = "Two methods need two seeds each."


def ensembles(rows: Sequence[Ensemble]) -> Table:
    """What models reach together, and by how much that is above the best of them."""
    columns = [
        Column("members", "members"),
        Column("rule", "rule"),
        Column("top1", "top-1, %", percent(), interval=True),
        Column("best", "best member"),
        Column("best_top1", "its top-1, %", percent()),
        Column("gain", "gain, points", signed(), interval=True),
        Column("quoted", "McNemar"),
        Column("log10_p", "log₁₀ p", decimals(2)),
        Column("holm_log10_p", "Holm log₁₀ p", decimals(2)),
    ]
    cells = [
        [
            Cell(_together(row.members)),
            Cell(row.rule),
            Cell(row.top1, row.low, row.high),
            Cell(row.gain.a),
            Cell(row.gain.statistics.accuracy_a),
            difference_cell(row.gain.interval),
            Cell(row.gain.statistics.quoted),
            Cell(
                row.gain.quoted_log10_p,
                note=row.gain.statistics.notes.get(f"mcnemar_{row.gain.statistics.quoted}", ""),
            ),
            Cell(row.gain.holm_log10_p),
        ]
        for row in rows
    ]
    caption = "Models answering together: gain over the best of them, with 95 % paired bootstrap interval."
    return Table("ensembles", caption, columns, cells, "An ensemble needs two models that classify.")


def _together(members: Sequence[str]) -> str:
    methods = {method_of(name) for name in members}
    return " + ".join(members) if len(methods) > 1 else f"{methods.pop()} of {len(members)} seeds"


def _cells(row: Gap | Stability, columns: Sequence[Column]) -> list[Cell]:
    return [Cell(getattr(row, column.key), note=row.notes.get(column.key, "")) for column in columns]


def generalisation(section: Mapping[str, Gap]) -> Table:
    """Accuracy and loss on training images as they are, and on test images."""
    columns = [
        MODEL,
        Column("train_top1", "training top-1, %", percent()),
        Column("test_top1", "test top-1, %", percent()),
        Column("top1_gap", "gap, points", signed()),
        Column("train_loss", "training loss", decimals(3)),
        Column("test_loss", "test loss", decimals(3)),
        Column("loss_gap", "gap of loss", decimals(3)),
    ]
    cells = [[Cell(name), *_cells(row, columns[1:])] for name, row in section.items()]
    counts = max((row.images for row in section.values()), default=0)
    what = f"{counts:,} training images, not augmented," if counts else "training images"
    caption = f"Generalisation: {what} against the test images; loss is cross-entropy in nats."
    return Table("generalisation", caption, columns, cells, "No model classifies.")


def variances(rows: Sequence[VariancesCompared]) -> Table:
    """Return whether the method in question varies as much over seeds as each other one."""
    columns = [
        Column("a", "A"),
        Column("b", "B"),
        Column("n_a", "seeds of A", grouped),
        Column("n_b", "of B", grouped),
        Column("sd_a", "sd of A, points", percent(2)),
        Column("sd_b", "of B", percent(2)),
        Column("ratio", "B / A", decimals(2)),
        Column("statistic", "Brown-Forsythe W", decimals(2)),
        Column("p", "p", decimals(4)),
        Column("holm_p", "Holm p", decimals(4)),
        Column("seeds_for_ratio", "seeds to see this ratio", grouped),
        Column("seeds_for_double", f"to see a ratio of {GIVEN_RATIO:g}", grouped),
    ]
    tested = {"statistic", "p", "holm_p"}
    cells = []
    for row in rows:
        line = [Cell(row.a), Cell(row.b)]
        for column in columns[2:]:
            value = row.holm_p if column.key == "holm_p" else getattr(row.result, column.key)
            why = row.result.notes.get("statistic" if column.key in tested else column.key, "")
            line.append(Cell(value, note=why))
        cells.append(line)
    caption = "Spread of top-1 over training seeds, two methods beside each other, and the seeds it would take."
    return Table("variances", caption, columns, cells, NOT_LISTED)


def stability(section: Mapping[str, Stability]) -> Table:
    """What test accuracy did from epoch to epoch in the last half of each training."""
    columns = [
        MODEL,
        Column("epochs", "epochs", grouped),
        Column("mean_change", "mean change, points", signed(2)),
        Column("sd", "sd of changes, points", percent(2)),
        Column("largest_fall", "largest fall, points", percent(2)),
    ]
    cells = [[Cell(name), *_cells(row, columns[1:])] for name, row in section.items()]
    caption = (
        "Steadiness: test top-1 from epoch to epoch in the last half of training, with stages in that of the last."
    )
    return Table("stability", caption, columns, cells, "No model classifies.")
