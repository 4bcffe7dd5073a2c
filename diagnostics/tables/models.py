"""The first table of the report: every model with its accuracy, calibration and cost."""

from __future__ import annotations

from collections.abc import Sequence

from diagnostics.budget import Training
from diagnostics.results import ModelAccuracy, RelativeCost, Report
from diagnostics.tables.table import (
    MODEL,
    NO_TEACHER,
    Cell,
    Column,
    Table,
    decimals,
    grouped,
    per,
    percent,
    together,
)
from training.usage import MemoryOf

NOT_TIMED = "Not on record: another seed than the first, taken over, or trained before this was kept."
MEMORY_OF: dict[MemoryOf, str] = {
    "device": "Allocated on the GPU.",
    "process": "Resident in the whole process, libraries and data included.",
    "process and what it ran before": "Of the process since it started: trainings before this one count too.",
}
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
        Column("seconds", "trained, s", decimals(1)),
        Column("training_speed", "images/s in training", together(0), sums=True),
        Column("peak_memory", "peak memory, MB", per(1e6, 0)),
    ]
    return Table(
        "models",
        f"All models on the same {report.images:,} test images.",
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
        *_usage_cells(report.given.models.get(model.name) if report.given else None),
    ]


def _usage_cells(trainings: Sequence[Training] | None) -> list[Cell]:
    """Seconds of all stages, images a second of each, and the most memory of any."""
    if not trainings:
        return [Cell(None, note=NOT_TIMED)] * 3
    usages = [training.usage for training in trainings]
    seconds = [usage.seconds for usage in usages if usage.seconds is not None]
    speeds = [usage.images_per_second for usage in usages if usage.images_per_second is not None]
    peaks = [usage.peak_memory for usage in usages if usage.peak_memory is not None]
    of = next((usage.memory_of for usage in usages if usage.memory_of), None)
    return [
        Cell(sum(seconds)) if len(seconds) == len(usages) else Cell(None, note=NOT_TIMED),
        Cell(" + ".join(f"{speed:.1f}" for speed in speeds))
        if len(speeds) == len(usages)
        else Cell(None, note=NOT_TIMED),
        Cell(max(peaks), note=MEMORY_OF[of]) if of and len(peaks) == len(usages) else Cell(None, note=NOT_TIMED),
    ]


def _cost_cells(measured: RelativeCost | None) -> list[Cell]:
    if measured is None:
        return [Cell(None, note=FIRST_SEED)] * 4
    cost = measured.cost
    return [*map(Cell, (cost.parameters, cost.flops, cost.state_bytes, cost.latencies[0].median_ms))]
