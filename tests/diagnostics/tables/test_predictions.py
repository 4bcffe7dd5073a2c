from __future__ import annotations

from diagnostics.cost import Cost, Latency
from diagnostics.evaluation.results import RelativeCost, Robustness
from diagnostics.tables.predictions import cost, robustness
from diagnostics.tables.table import (
    Table,
)


def shown(table: Table, row: int = 0) -> dict[str, str]:
    return {column.key: text for column, (text, _) in zip(table.columns, table.shown()[row], strict=True)}


def test_robustness_and_cost_without_a_teacher():
    errors_of = {"kd": {"jpeg": [0.1, 0.2, 0.3, 0.4, 0.5]}}
    table = robustness(Robustness(errors_of, {}, 9))
    assert shown(table) == {"model": "kd", "relative_error": "n/a", "jpeg": "30.0"}
    assert "no teacher" in table.notes[0]
    latency = Latency(batch=1, repeats=5, median_ms=0.5, iqr_ms=0.1, images_per_second=2000.0)
    table = cost({"kd": RelativeCost(Cost(10, 20, 30, [latency], "cpu", 1), None)})
    assert shown(table)["median_ms_1"] == "0.50" and shown(table)["latency_ratio_1"] == "n/a"
    assert cost({}).empty and not cost({}).rows
