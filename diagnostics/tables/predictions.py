"""Tables of what each model predicts: like its teacher, how surely, in which classes, under corruption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from diagnostics.calibration import Calibration
from diagnostics.confusion import MOST_CONFUSED, ClassAccuracy, Confusion
from diagnostics.differing import Classifier
from diagnostics.evaluation.recording import Recording
from diagnostics.evaluation.results import Faithfulness, Robustness
from diagnostics.generalisation import Gap
from diagnostics.names import show_name
from diagnostics.tables.table import (
    MODEL,
    NO_TEACHER,
    Cell,
    Column,
    Table,
    format_decimals,
    format_percent,
    format_points,
    format_whole,
    read_row,
)

NO_IMAGE = "No test image of this class."
NO_MODEL = "No model classifies."
FIDELITY = (
    MODEL,
    Column("agreement", "agreement, %", format_percent(), path="result.agreement"),
    Column("kl", "KL, nats", format_decimals(3), path="result.kl"),
    Column("teacher_errors", "teacher's errors", format_whole, path="result.teacher_errors"),
    Column("agreement_on_errors", "shared errors, %", format_percent(), path="result.agreement_on_errors"),
    Column("lost", "classes that lost", format_whole),
)
CALIBRATION = (
    MODEL,
    Column("ece", "ECE, %", format_percent()),
    Column("classwise_ece", "classwise ECE, %", format_percent(2)),
    Column("brier", "Brier", format_decimals(3)),
    Column("nll", "NLL", format_decimals(3)),
    Column("temperature", "best T", format_decimals(2), path="scaling.temperature"),
    Column("ece_before", "ECE before, %", format_percent(), path="scaling.ece_before"),
    Column("ece_after", "ECE after, %", format_percent(), path="scaling.ece_after"),
    Column("nll_before", "NLL before", format_decimals(3), path="scaling.nll_before"),
    Column("nll_after", "NLL after", format_decimals(3), path="scaling.nll_after"),
)
GENERALISATION = (
    MODEL,
    Column("train_top1", "training top-1, %", format_percent()),
    Column("test_top1", "test top-1, %", format_percent()),
    Column("top1_gap", "gap, points", format_points()),
    Column("train_loss", "training loss", format_decimals(3)),
    Column("test_loss", "test loss", format_decimals(3)),
    Column("loss_gap", "gap of loss", format_decimals(3)),
)


def make_fidelity_table(section: Mapping[str, Faithfulness] | None) -> Table:
    """Return how faithfully students reproduce the teacher."""
    rows = []
    for name, row in (section or {}).items():
        lost = sum(value < 0 for value in row.result.accuracy_change if value is not None)
        note = row.result.notes.get("accuracy_change", "")
        rows.append([*read_row([name], row, FIDELITY[:-1]), Cell(lost, note=note)])
    why = NO_TEACHER if section is None else "There is no student that classifies."
    return Table("fidelity", "How often a student answers as its teacher does.", FIDELITY, rows, why)


def make_calibration_table(section: Mapping[str, Calibration]) -> Table:
    """Return whether confidence can be believed, and what a temperature would correct."""
    rows = [read_row([name], row, CALIBRATION) for name, row in section.items()]
    caption = "Calibration; T is fitted on one half of the images, before and after are of the other half."
    return Table("calibration", caption, CALIBRATION, rows, NO_MODEL)


def make_generalisation_table(section: Mapping[str, Gap]) -> Table:
    """Return accuracy and loss on training images as they are, and on test images."""
    rows = [read_row([name], row, GENERALISATION) for name, row in section.items()]
    count = max((row.images for row in section.values()), default=0)
    what = f"{count:,} training images, not augmented," if count else "training images"
    caption = f"Generalisation: {what} against the test images; loss is cross-entropy in nats."
    return Table("generalisation", caption, GENERALISATION, rows, NO_MODEL)


def make_robustness_table(section: Robustness) -> Table:
    """Return the mean error over the five severities of each corruption, and the mean relative to the teacher."""
    kinds = list(next(iter(section.errors.values()), {}))
    columns = [
        MODEL,
        Column("relative_error", "relative error", format_decimals(2), path="mean", why=NO_TEACHER),
        *(Column(kind, f"{kind.replace('_', ' ')}, %", format_percent()) for kind in kinds),
    ]
    rows = [
        [
            *read_row([name], section.relative.get(name), columns[:2]),
            *(Cell(sum(rates[kind]) / len(rates[kind])) for kind in kinds),
        ]
        for name, rates in section.errors.items()
    ]
    caption = (
        f"Mean error over five severities on {section.images:,} corrupted test images, and relative to the "
        "teacher's over all six corruptions."
    )
    return Table("robustness", caption, columns, rows, "No model was tested on corrupted images.")


def make_classes_table(rows: Sequence[ClassAccuracy]) -> Table:
    """Return the accuracy of each model of the first seed, a row a class."""
    names = list(rows[0].accuracy) if rows else []
    columns = [
        Column("class", "class"),
        Column("number", "number", format_whole),
        Column("images", "images", format_whole),
        *(Column(name, f"{show_name(name)}, %", format_percent(), why=NO_IMAGE) for name in names),
    ]
    cells = [
        [
            Cell(row.name),
            Cell(row.number),
            Cell(row.images),
            *(Cell(row.accuracy[n], note=_explain(row)) for n in names),
        ]
        for row in (rows if names else [])
    ]
    return Table("classes", "Accuracy by class, models of the first seed.", columns, cells, NO_MODEL)


def _explain(row: ClassAccuracy) -> str:
    return "" if row.images else NO_IMAGE


def make_confusions_table(rows: Sequence[Confusion]) -> Table:
    """Return the most confused pairs of classes, and how many images each model confuses."""
    names = list(rows[0].counts) if rows else []
    columns = [
        Column("label", "is"),
        Column("answer", "is taken for"),
        Column("images", "images of the class", format_whole),
        *(Column(name, show_name(name), format_whole) for name in names),
    ]
    cells = [
        [Cell(row.label), Cell(row.answer), Cell(row.images), *map(Cell, row.counts.values())] for row in rows
    ]
    caption = f"The most confused pairs of classes, at most {MOST_CONFUSED}: images that each model takes so."
    return Table("confusions", caption, columns, cells, "No image is taken for another class.")


def make_predictions_table(recording: Recording) -> Table:
    """Return what every model that classifies answers to every test image, with the probability of its answer."""
    names, labels = recording.context.classes, recording.labels
    models = [
        Classifier(model.name, model.meta.method, model.logits)
        for model in recording.models
        if model.meta.classifies
    ]
    columns = [Column("index", "index"), Column("file", "file"), Column("label", "label")]
    for model in models:
        columns += [Column(model.name, model.name), Column(f"{model.name}_probability", "probability")]
    files = ["" for _ in labels] if recording.names is None else recording.names.tolist()
    rows = []
    for image, (index, file, label) in enumerate(
        zip(recording.indices.tolist(), files, labels.tolist(), strict=True)
    ):
        line = [Cell(index), Cell(file), Cell(names[label])]
        for model in models:
            line += [Cell(names[model.answers[image]]), Cell(round(float(model.sure[image]), 6))]
        rows.append(line)
    return Table("predictions", "Every answer.", columns, rows)
