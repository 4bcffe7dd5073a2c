"""Tables of what each model predicts: like its teacher or not, how surely, under corruption, at what cost."""

from __future__ import annotations

from collections.abc import Mapping

from diagnostics.calibration import Calibration
from diagnostics.evaluation.results import Faithfulness, RelativeCost, Robustness
from diagnostics.tables.table import MODEL, NO_TEACHER, Cell, Column, Table, decimals, grouped, per, percent

CALIBRATION = "Calibration; T is fitted on one half of the images, before and after are of the other half."


def fidelity(section: Mapping[str, Faithfulness] | None) -> Table:
    """How faithfully students reproduce the teacher."""
    columns = [
        MODEL,
        Column("agreement", "agreement, %", percent()),
        Column("kl", "KL, nats", decimals(3)),
        Column("teacher_errors", "teacher's errors", grouped),
        Column("agreement_on_errors", "shared errors, %", percent()),
        Column("lost", "classes that lost"),
    ]
    cells = []
    for name, row in (section or {}).items():
        result = row.result
        change = [value for value in result.accuracy_change if value is not None]
        cells.append(
            [
                Cell(name),
                Cell(result.agreement),
                Cell(result.kl),
                Cell(result.teacher_errors),
                Cell(result.agreement_on_errors, note=result.notes.get("agreement_on_errors", "")),
                Cell(
                    f"{sum(value < 0 for value in change)} of {len(change)}",
                    note=result.notes.get("accuracy_change", ""),
                ),
            ]
        )
    why = NO_TEACHER if section is None else "There is no student that classifies."
    return Table("fidelity", "How often a student answers as its teacher does.", columns, cells, why)


def calibration(section: Mapping[str, Calibration]) -> Table:
    """Whether confidence can be believed, and what a temperature would mend."""
    columns = [
        MODEL,
        Column("ece", "ECE, %", percent()),
        Column("classwise_ece", "classwise ECE, %", percent(2)),
        Column("brier", "Brier", decimals(3)),
        Column("nll", "NLL", decimals(3)),
        Column("temperature", "best T", decimals(2)),
        Column("ece_before", "ECE before, %", percent()),
        Column("ece_after", "ECE after, %", percent()),
        Column("nll_before", "NLL before", decimals(3)),
        Column("nll_after", "NLL after", decimals(3)),
    ]
    after = [column.key for column in columns[5:]]
    cells = []
    for name, row in section.items():
        scaling, why = row.scaling, row.notes.get("scaling", "")
        fitted = [Cell(getattr(scaling, key)) if scaling else Cell(None, note=why) for key in after]
        cells.append([Cell(name), Cell(row.ece), Cell(row.classwise_ece), Cell(row.brier), Cell(row.nll), *fitted])
    return Table("calibration", CALIBRATION, columns, cells, "No model classifies.")


def robustness(section: Robustness) -> Table:
    """Mean error over the five severities of each corruption, and the mean relative to the teacher."""
    kinds = list(next(iter(section.errors.values()), {}))
    columns = [
        MODEL,
        Column("relative_error", "relative error", decimals(2)),
        *(Column(kind, f"{kind.replace('_', ' ')}, %", percent()) for kind in kinds),
    ]
    cells = []
    for name, rates in section.errors.items():
        relative = section.relative.get(name)
        why = relative.notes.get("mean", "") if relative else NO_TEACHER
        mean = relative.mean if relative else None
        cells.append([Cell(name), Cell(mean, note=why), *(Cell(sum(rates[k]) / len(rates[k])) for k in kinds)])
    caption = (
        f"Mean error over five severities on {section.images:,} corrupted test images, and relative to the "
        "teacher's over all six corruptions."
    )
    return Table("robustness", caption, columns, cells, "No model was tested on corrupted images.")


def cost(section: Mapping[str, RelativeCost]) -> Table:
    """Size, arithmetic and time of each model."""
    first = next(iter(section.values()), None)
    columns = [
        MODEL,
        Column("parameters", "parameters", grouped),
        Column("flops", "FLOPs an image", grouped),
        Column("state_bytes", "bytes", grouped),
        Column("parameter_ratio", "× parameters", decimals(3)),
        Column("flop_ratio", "× FLOPs", decimals(3)),
    ]
    for latency in first.cost.latencies if first else []:
        batch = latency.batch
        columns += [
            Column(f"median_ms_{batch}", f"batch {batch}: ms", decimals(2)),
            Column(f"iqr_ms_{batch}", "quartiles apart, ms", decimals(2)),
            Column(f"images_per_second_{batch}", "images a second", per(1, 0)),
            Column(f"latency_ratio_{batch}", "× time", decimals(2)),
        ]
    cells = []
    for name, row in section.items():
        line = [Cell(name), Cell(row.cost.parameters), Cell(row.cost.flops), Cell(row.cost.state_bytes)]
        ratios = (row.ratio.parameters, row.ratio.flops) if row.ratio else (None, None)
        line += [Cell(ratio, note="" if row.ratio else NO_TEACHER) for ratio in ratios]
        for item in row.cost.latencies:
            times = row.ratio.latency.get(str(item.batch)) if row.ratio else None
            why = row.ratio.notes.get("latency", "") if row.ratio else NO_TEACHER
            line += [Cell(item.median_ms), Cell(item.iqr_ms), Cell(item.images_per_second)]
            line.append(Cell(times, note=why if times is None else ""))
        cells.append(line)
    device = f" on {first.cost.device}, CPU threads: {first.cost.threads}" if first else ""
    caption = f"Size and speed{device}; × as a multiple of the teacher's."
    return Table("cost", caption, columns, cells, "The cost of no model was measured.")
