"""What each method was given to train with, beside what it reaches."""

from __future__ import annotations

from collections.abc import Sequence

from diagnostics.budget import Training
from diagnostics.evaluation.budget_parity import batches_of
from diagnostics.evaluation.results import Given
from diagnostics.seeds import typographic
from diagnostics.tables.table import MODEL, Cell, Column, Table, Value, grouped, together

NOT_RECORDED = "No training of it is on record: taken over as it was, or recorded before this was kept."
CACHED = "At most: cached once for a few views of each image, and shared by all trainings on these images."
TEACHERS = "The head on the teacher's features: its passes are the teacher's."
LAST_BLOCK = "The last block trains alone: passes backwards end there."


def given(result: Given | None) -> Table:
    """Return the trainings of each model of the first seed, the stages of a method added up."""
    columns = [
        MODEL,
        Column("epochs", "epochs", together(), sums=True),
        Column("steps", "steps", grouped),
        Column("images_seen", "images seen", grouped),
        Column("passes", "forward-backward passes", grouped),
        Column("teacher_passes", "teacher's forward passes", grouped),
        Column("parameters", "parameters trained", together(), sums=True),
        Column("batch_size", "batch size"),
        Column("losses", "losses and weights"),
        Column("optimizer", "optimizer", lambda value: typographic(str(value))),
        Column("reported", "epoch reported"),
    ]
    return Table(
        "given",
        "What each method was given in training, first seed, its stages one after the other. Rates and weights "
        "are those of the config: nothing was tuned by this tool.",
        columns,
        [] if result is None else [_row(name, trainings) for name, trainings in result.models.items()],
        "Two files of weights: what they were trained with is not on record.",
    )


def _row(name: str, trainings: Sequence[Training] | None) -> list[Cell]:
    if trainings is None:
        return [Cell(name), *[Cell(None, note=NOT_RECORDED)] * 10]
    last = trainings[-1]
    return [
        Cell(name),
        Cell(_parts([training.epochs for training in trainings]), note=_of_epochs(trainings)),
        Cell(sum(training.updates for training in trainings)),
        Cell(sum(training.seen for training in trainings)),
        Cell(sum(training.passes for training in trainings), note=_of_passes(trainings)),
        Cell(_teacher_passes(trainings), note=CACHED if any(training.cached for training in trainings) else ""),
        Cell(_parts([training.parameters for training in trainings])),
        Cell(_parts(list(dict.fromkeys(batches_of(training) for training in trainings)))),
        Cell("; ".join(_losses(training) for training in trainings)),
        Cell("; ".join(dict.fromkeys(training.optimizer for training in trainings))),
        Cell(last.reported),
    ]


def _losses(training: Training) -> str:
    words = ", ".join(f"{name} {weight}" for name, weight in training.losses.items())
    return words if training.temperature is None else f"{words}, T {training.temperature:g}"


def _teacher_passes(trainings: Sequence[Training]) -> int:
    """What is cached counts once for all trainings on the same images."""
    cached = {training.balanced: training.teacher_passes for training in trainings if training.cached}
    return sum(training.teacher_passes for training in trainings if not training.cached) + sum(cached.values())


def _of_epochs(trainings: Sequence[Training]) -> str:
    ended = [f"{training.epochs} of {training.planned}" for training in trainings if training.ended_early]
    return f"Stopped early: {' and '.join(ended)} epochs." if ended else ""


def _of_passes(trainings: Sequence[Training]) -> str:
    notes = []
    for training in trainings:
        if training.frozen and not training.forward_only:
            notes.append(TEACHERS)
        elif training.frozen:
            notes.append(
                f"The head on frozen features: {training.forward_only:,} passes forwards alone beside these, one "
                "a view of each image, and none backwards through features."
            )
        elif training.forward_only:
            notes.append(f"{training.forward_only:,} passes forwards alone beside these, to fill the banks.")
        elif training.train == "last_block":
            notes.append(LAST_BLOCK)
    return " ".join(notes)


def _parts(numbers: Sequence[int | str]) -> Value:
    """One number, or "14 + 10" for two trainings."""
    return numbers[0] if len(numbers) == 1 else " + ".join(map(str, numbers))
