"""The first table of the report: every model with its accuracy, calibration and cost."""

from __future__ import annotations

from diagnostics.pairs import Section
from diagnostics.tables.table import MODEL, NO_TEACHER, Cell, Column, Table, decimals, grouped, percent

FIRST_SEED = "Measured for the models of the first seed."


def models(report: Section) -> Table:
    """What each model reaches and costs: the answer in one table."""
    columns = [
        MODEL,
        Column("arch", "architecture"),
        Column("top1", "top-1, %", percent(), interval=True),
        Column("agreement", "agreement, %", percent()),
        Column("ece", "ECE, %", percent()),
        Column("nll", "NLL", decimals(3)),
        Column("parameters", "parameters", grouped),
        Column("flops", "MFLOPs", lambda value: f"{value / 1e6:,.1f}"),
        Column("state_bytes", "kB", lambda value: f"{value / 1000:,.0f}"),
        Column("median_ms", "ms an image", decimals(2)),
        Column("parameter_ratio", "× parameters", decimals(3)),
        Column("flop_ratio", "× FLOPs", decimals(3)),
    ]
    return Table(
        "models",
        f"All models on the same {report['images']:,} test images; × as a multiple of the teacher's.",
        columns,
        [_model_row(model, report) for model in report["models"]],
        "No model classifies.",
    )


def _model_row(model: Section, report: Section) -> list[Cell]:
    name = model["name"]
    calibrated = report["calibration"][name]
    faithful = report.get("fidelity", {}).get(name)
    cost = report["cost"].get(name, {})
    ratio = cost.get("ratio")
    is_teacher = model["method"] == "teacher"
    no_cost = "" if cost else FIRST_SEED
    no_ratio = no_cost or ("" if ratio else NO_TEACHER)
    latency = cost["latencies"][0]["median_ms"] if cost else None
    alone = "" if faithful else ("The teacher itself." if is_teacher else NO_TEACHER)
    return [
        Cell(name),
        Cell(model["arch"]),
        Cell(model["top1"], model["low"], model["high"]),
        Cell(faithful["agreement"] if faithful else None, note=alone),
        Cell(calibrated["ece"]),
        Cell(calibrated["nll"]),
        *(Cell(cost.get(key), note=no_cost) for key in ("parameters", "flops", "state_bytes")),
        Cell(latency, note=no_cost),
        *(Cell(ratio[key] if ratio else None, note=no_ratio) for key in ("parameters", "flops")),
    ]
