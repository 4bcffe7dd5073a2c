"""The first table of the report: every model with its accuracy, calibration and cost."""

from __future__ import annotations

from diagnostics.results import ModelAccuracy, RelativeCost, Report
from diagnostics.tables.table import MODEL, NO_TEACHER, Cell, Column, Table, decimals, grouped, per, percent

FIRST_SEED = "Measured for the models of the first seed."


def models(report: Report) -> Table:
    """What each model reaches and costs: the answer in one table."""
    columns = [
        MODEL,
        Column("arch", "architecture"),
        Column("top1", "top-1, %", percent(), interval=True),
        Column("agreement", "agreement, %", percent()),
        Column("ece", "ECE, %", percent()),
        Column("nll", "NLL", decimals(3)),
        Column("parameters", "parameters", grouped),
        Column("flops", "MFLOPs", per(1e6, 1)),
        Column("state_bytes", "kB", per(1000, 0)),
        Column("median_ms", "ms an image", decimals(2)),
        Column("parameter_ratio", "× parameters", decimals(3)),
        Column("flop_ratio", "× FLOPs", decimals(3)),
    ]
    return Table(
        "models",
        f"All models on the same {report.images:,} test images; × as a multiple of the teacher's.",
        columns,
        [_model_row(model, report) for model in report.models],
        "No model classifies.",
    )


def _model_row(model: ModelAccuracy, report: Report) -> list[Cell]:
    calibrated = report.calibration[model.name]
    faithful = (report.fidelity or {}).get(model.name)
    alone = "The teacher itself." if model.method == "teacher" else NO_TEACHER
    return [
        Cell(model.name),
        Cell(model.arch),
        Cell(model.top1, model.low, model.high),
        Cell(None, note=alone) if faithful is None else Cell(faithful.result.agreement),
        Cell(calibrated.ece),
        Cell(calibrated.nll),
        *_cost_cells(report.cost.get(model.name)),
    ]


def _cost_cells(measured: RelativeCost | None) -> list[Cell]:
    if measured is None:
        return [Cell(None, note=FIRST_SEED)] * 6
    cost, ratio = measured.cost, measured.ratio
    numbers = (cost.parameters, cost.flops, cost.state_bytes, cost.latencies[0].median_ms)
    if ratio is None:
        return [*map(Cell, numbers), *[Cell(None, note=NO_TEACHER)] * 2]
    return [*map(Cell, numbers), Cell(ratio.parameters), Cell(ratio.flops)]
