"""What each training measured when it ended: terms of its losses by name, accuracies, agreement of features."""

from __future__ import annotations

from collections.abc import Mapping

from diagnostics.tables.table import MODEL, Cell, Column, Table, decimals, grouped, percent
from diagnostics.terms import History, is_accuracy, list_measures

NOT_MEASURED = "Nothing that this training measures."


def reached(curves: Mapping[str, History]) -> Table:
    """Return the last epoch of each training, a row a model or stage, a column a measure."""
    trained = {name: history for name, history in curves.items() if history}
    measures = list(dict.fromkeys(name for history in trained.values() for name in list_measures(history)))
    columns = [MODEL, Column("epochs", "epochs", grouped), *map(_column, measures)]
    rows = [
        [Cell(name), Cell(len(history)), *(_cell(history[-1], measure) for measure in measures)]
        for name, history in trained.items()
    ]
    caption = "What each training measured in its last epoch; terms of losses are before their weights."
    return Table("reached", caption, columns, rows, "No training of these models is on record.")


def _column(name: str) -> Column:
    return Column(name, f"{name}, %", percent(2)) if is_accuracy(name) else Column(name, name, decimals(4))


def _cell(epoch: Mapping[str, float], name: str) -> Cell:
    return Cell(epoch[name]) if name in epoch else Cell(None, note=NOT_MEASURED)
