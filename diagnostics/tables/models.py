"""Tables of what each model reaches, what it costs, and what its trainings were given and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from diagnostics.best_epoch import BestEpochs
from diagnostics.budget import TrainingBudget
from diagnostics.evaluation.results import BudgetParity, MethodOverSeeds, ModelAccuracy, RelativeCost
from diagnostics.names import is_first
from diagnostics.seeds import replace_hyphen
from diagnostics.tables.table import (
    MODEL,
    NO_TEACHER,
    Cell,
    Column,
    Table,
    format_decimals,
    format_multiple,
    format_percent,
    format_points,
    format_whole,
    read_row,
)
from diagnostics.terms import History, is_accuracy, list_measures
from training.usage import MemoryOf

NO_RATIO = "Measured for models of the first seed with a teacher beside them."
OF_TEACHER = "The teacher itself."
NOT_RECORDED = "No training of it is on record: taken over as it was, or recorded before this was kept."
NOT_TIMED = "Not on record: taken over, or trained before this was kept."
CACHED = "At most: cached once for a few views of each image, and shared by all trainings on these images."
FROZEN = "The head trains on frozen features: no pass goes backwards through them."
LAST_BLOCK = "The last block trains alone: passes backwards end there."
NOT_MEASURED = "This training does not measure it."
NO_EPOCH = "No epoch with a test accuracy is on record."
MEMORY_OF: dict[MemoryOf, str] = {
    "device": "Allocated on the GPU.",
    "process": "Resident in the whole process, libraries and data included.",
    "process and what it ran before": "Of the process since it started: trainings before this one count too.",
}
BEST_EPOCHS = (
    MODEL,
    Column("final", "final top-1, %", format_percent(2)),
    Column("best", "best test epoch (optimistic), %", format_percent(2)),
    Column("difference", "best − final, points", format_points(2)),
    Column("epoch", "best epoch", format_whole),
    Column("epochs", "of epochs", format_whole),
)


def make_models_table(
    models: Sequence[ModelAccuracy],
    seeds: Mapping[str, MethodOverSeeds],
    cost: Mapping[str, RelativeCost],
    images: int,
) -> Table:
    """Return the accuracy of each method beside its teacher's, and its relative size and time.

    Several seeds of a method are one row: their mean, with its interval over seeds.
    """
    columns = [
        MODEL,
        Column("top1", "top-1, %", format_percent(), interval=True),
        Column("less_teacher", "less teacher, points", format_points()),
        Column("parameter_ratio", "× parameters", format_decimals(3)),
        Column("latency_ratio", "× time", format_decimals(2)),
    ]
    teacher = next((model.top1 for model in models if model.method == "teacher"), None)
    rows = []
    for model in models:
        if not is_first(model.name):
            continue
        top1 = read_top1(model, seeds.get(model.method))
        less = None if teacher is None or model.method == "teacher" else float(top1.value or 0) - teacher
        ratio = cost[model.name].ratio if model.name in cost else None
        time = next(iter(ratio.latency.values()), None) if ratio else None
        why = OF_TEACHER if model.method == "teacher" else NO_TEACHER
        rows.append(
            [
                Cell(model.name),
                top1,
                Cell(less, note=why if less is None else ""),
                Cell(ratio.parameters if ratio else None, note="" if ratio else NO_RATIO),
                Cell(time, note=NO_RATIO if time is None else ""),
            ]
        )
    caption = f"All models on the same {images:,} test images; × as a multiple of the teacher's."
    if not cost:
        caption, columns, rows = caption.partition(";")[0] + ".", columns[:3], [row[:3] for row in rows]
    return Table("models", caption, columns, rows, "No model classifies.")


def read_top1(model: ModelAccuracy, over_seeds: MethodOverSeeds | None) -> Cell:
    """Return the accuracy of a model with its interval, or the mean of its method over several seeds."""
    if over_seeds is None or over_seeds.summary.n < 2:
        return Cell(model.top1, model.low, model.high, "One training, 95 % over test images.")
    found = over_seeds.summary
    note = found.notes.get("low") or f"Mean, 95 % over {found.n} student seeds of one teacher."
    return Cell(found.mean, found.low, found.high, note)


def make_cost_table(section: Mapping[str, RelativeCost], models: Sequence[ModelAccuracy]) -> Table:
    """Return size, arithmetic and time of each model."""
    first = next(iter(section.values()), None)
    columns = [
        MODEL,
        Column("arch", "architecture"),
        Column("parameters", "parameters", format_whole, path="cost.parameters"),
        Column("state_bytes", "bytes", format_whole, path="cost.state_bytes"),
        Column("flops", "FLOPs an image", format_whole, path="cost.flops"),
        Column("parameter_ratio", "× parameters", format_decimals(3), path="ratio.parameters", why=NO_TEACHER),
        Column("flop_ratio", "× FLOPs", format_decimals(3), path="ratio.flops", why=NO_TEACHER),
    ]
    timed = []
    for latency in first.cost.latencies if first else []:
        batch = latency.batch
        timed += [
            Column(f"median_ms_{batch}", f"batch {batch}: ms", format_decimals(2)),
            Column(f"iqr_ms_{batch}", "quartiles apart, ms", format_decimals(2)),
            Column(f"images_per_second_{batch}", "images a second", format_multiple(1, 0)),
            Column(f"latency_ratio_{batch}", "× time", format_decimals(2)),
        ]
    archs = {model.name: model.arch for model in models}
    rows = []
    for name, row in section.items():
        cells = read_row([name, archs.get(name)], row, columns)
        cells.insert(5, Cell(row.cost.flops / 2))
        for item in row.cost.latencies:
            ratio = row.ratio.latency.get(str(item.batch)) if row.ratio else None
            why = row.ratio.notes.get("latency", "") if row.ratio else NO_TEACHER
            cells += map(Cell, (item.median_ms, item.iqr_ms, item.images_per_second))
            cells.append(Cell(ratio, note=why if ratio is None else ""))
        rows.append(cells)
    columns.insert(5, Column("macs", "MACs an image", format_multiple(1, 0)))
    device = f" on {first.cost.device}, CPU threads: {first.cost.threads}" if first else ""
    caption = f"Size and speed{device}; × as a multiple of the teacher's."
    return Table("cost", caption, [*columns, *timed], rows, "The cost of no model was measured.")


TRAININGS = (
    MODEL,
    replace(MODEL, key="training", heading="training", path="title"),
    Column("epochs", "epochs", format_whole),
    Column("planned", "planned", format_whole),
    Column("updates", "steps", format_whole),
    Column("seen", "images seen", format_whole),
    Column("passes", "forward-backward passes", format_whole),
    Column("forward_only", "forward passes alone", format_whole),
    Column("teacher_passes", "teacher's forward passes", format_whole),
    Column("parameters", "parameters trained", format_whole),
    Column("batch_size", "batch size", format_whole),
    Column("accumulate", "batches a step", format_whole),
    Column("losses", "losses and weights"),
    Column("temperature", "T of KL", format_decimals(1), why="No KL term."),
    Column("optimizer", "optimizer", lambda value: replace_hyphen(str(value))),
    Column("reported", "epoch reported"),
    Column("seconds", "seconds", format_decimals(1), path="usage.seconds", why=NOT_TIMED),
    Column("images_per_second", "images/s", format_multiple(1, 0), path="usage.images_per_second", why=NOT_TIMED),
    Column("peak_memory", "peak memory, MB", format_multiple(1e6, 0), path="usage.peak_memory"),
)


def make_trainings_table(result: BudgetParity | None) -> Table:
    """Return the trainings that each model of the first seed went through, a row a training."""
    caption = (
        "What each method was given in training, first seed, a row a stage. Rates and weights are those of the "
        "config: nothing was tuned by this tool."
    )
    rows = []
    for name, trainings in (result.models if result else {}).items():
        rows += [_read_training(name, one) for one in trainings or []]
        if trainings is None:
            rows.append([Cell(name), *[Cell(None, note=NOT_RECORDED)] * (len(TRAININGS) - 1)])
    empty = "Two files of weights: what they were trained with is not on record."
    return Table("given", caption, TRAININGS, rows, empty)


def _read_training(name: str, training: TrainingBudget) -> list[Cell]:
    cells = {
        column.key: cell for column, cell in zip(TRAININGS, read_row([name], training, TRAININGS), strict=True)
    }
    losses = ", ".join(f"{loss} {weight}" for loss, weight in training.losses.items())
    notes = {
        "passes": FROZEN if training.frozen else LAST_BLOCK if training.train == "last_block" else "",
        "teacher_passes": CACHED if training.cached else "",
        "peak_memory": MEMORY_OF[training.usage.memory_of] if training.usage.memory_of else NOT_TIMED,
    }
    cells |= {"losses": Cell(losses)} | {key: replace(cells[key], note=note) for key, note in notes.items()}
    return list(cells.values())


def make_reached_table(curves: Mapping[str, History]) -> Table:
    """Return the last epoch of each training, a row a model or stage, a column a measure."""
    trained = {name: history for name, history in curves.items() if history}
    measures = list(dict.fromkeys(name for history in trained.values() for name in list_measures(history)))
    columns = [MODEL, Column("epochs", "epochs", format_whole)]
    for name in measures:
        is_share = is_accuracy(name)
        columns.append(
            Column(name, f"{name}, %" if is_share else name, format_percent(2) if is_share else format_decimals(4))
        )
    rows = [
        [Cell(name), Cell(len(history)), *(_read_measure(history[-1], measure) for measure in measures)]
        for name, history in trained.items()
    ]
    caption = (
        "What each training measured in its last epoch. Terms of losses are not weighted: a training minimises "
        "their sum, each times its weight in the table of what each method was given."
    )
    return Table("reached", caption, columns, rows, "No training of these models is on record.")


def make_best_epochs_table(result: BestEpochs | None) -> Table:
    """Return the final top-1 of each model beside that of its best test epoch."""
    rows = [read_row([row.model], row, BEST_EPOCHS) for row in (result.models if result else [])]
    caption = "The best test epoch of each model's last training. Chosen on test images, so optimistic."
    return Table("best_epochs", caption, BEST_EPOCHS, rows, NO_EPOCH)


def _read_measure(epoch: Mapping[str, float], name: str) -> Cell:
    return Cell(epoch[name]) if name in epoch else Cell(None, note=NOT_MEASURED)
