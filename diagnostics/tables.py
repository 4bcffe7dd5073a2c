"""The tables of the report: here and in tables_*.py what stands in which column, in table_format.py how."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diagnostics import tables_comparison, tables_features, tables_predictions
from diagnostics.table_format import MODEL, NO_TEACHER, Cell, Column, Table, decimals, grouped, percent, to_text

Section = Mapping[str, Any]
FIRST_SEED = "Measured for the models of the first seed."


def all_tables(report: Section) -> dict[str, Table]:
    """Every table by name, in the order of the report; one without rows says why."""
    tables = [
        models(report),
        tables_comparison.pairs(report["pairs"]),
        tables_comparison.tests(report["pairs"]),
        tables_comparison.errors(report["pairs"]),
        tables_comparison.seeds(report["seeds"]),
        tables_comparison.seed_comparisons(report["seeds"]),
        tables_predictions.fidelity(report.get("fidelity")),
        tables_features.representation(report.get("representation")),
        tables_features.information(report["information"]),
        tables_features.geometry(report["geometry"]),
        tables_predictions.calibration(report["calibration"]),
        tables_predictions.robustness(report["robustness"]),
        tables_predictions.cost(report["cost"]),
    ]
    return {table.name: table for table in tables}


def summary_text(report: Section) -> str:
    """Models, pairs and seeds for the terminal, and the sentences."""
    tables = all_tables(report)
    shown = [tables[name] for name in ("models", "pairs", "tests", "errors", "seeds", "seed_comparisons")]
    return "\n".join([*(to_text(table) for table in shown), *report["sentences"]]) + "\n"


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
