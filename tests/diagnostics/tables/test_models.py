from __future__ import annotations

from diagnostics.cost import Cost, CostRatio, Latency
from diagnostics.evaluation.results import MethodOverSeeds, ModelAccuracy, RelativeCost, Robustness
from diagnostics.seeds import summarise_shares
from diagnostics.tables.models import make_cost_table, make_models_table
from diagnostics.tables.predictions import make_robustness_table
from tests.diagnostics.tables.test_comparison import shown

LATENCY = Latency(batch=1, repeats=5, median_ms=0.5, iqr_ms=0.1, images_per_second=2000.0)


def test_robustness_and_cost_without_a_teacher() -> None:
    table = make_robustness_table(Robustness({"kd": {"jpeg": [0.1, 0.2, 0.3, 0.4, 0.5]}}, {}, 9))
    assert shown(table) == {"model": "kd", "relative_error": "n/a", "jpeg": "30.0"}
    assert "no teacher" in table.notes[0]
    table = make_cost_table({"kd": RelativeCost(Cost(10, 20, 30, [LATENCY], "cpu", 1), None)}, [])
    row = shown(table)
    assert (row["flops"], row["macs"], row["median_ms_1"], row["latency_ratio_1"]) == ("20", "10", "0.50", "n/a")
    assert make_cost_table({}, []).empty and not make_cost_table({}, []).rows


def test_a_method_of_several_seeds_is_one_row_of_means() -> None:
    tops = {"teacher": 0.9, "kd": 0.7, "kd/1": 0.8}
    models = [
        ModelAccuracy(name, name[:2] if name[0] == "k" else name, None, "", "", t, t - 0.1, 1)
        for name, t in tops.items()
    ]
    over = {"kd": MethodOverSeeds([0, 1], summarise_shares([0.7, 0.8]))}
    ratio = CostRatio(0.25, None, None, {"1": 0.5}, {})
    cost = {"kd": RelativeCost(Cost(10, 20, 30, [LATENCY], "cpu", 1), ratio)}
    table = make_models_table(models, over, cost, 50)
    assert [row[0].value for row in table.rows] == ["teacher", "kd"] and len(table.columns) == 5
    row = shown(table, 1)
    assert (row["less_teacher"], row["parameter_ratio"], row["latency_ratio"]) == ("−15.0", "0.250", "0.50")
    assert row["top1"].startswith("75.0 [") and 0 <= table.rows[1][1].low < table.rows[1][1].high <= 1
    assert "over 2 student seeds of one teacher" in table.notes[-1]
