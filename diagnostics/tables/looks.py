"""Tables of what to look at next: accuracy by class, confused classes, and the answer to every image."""

from __future__ import annotations

from collections.abc import Sequence

from diagnostics.confusion import ClassAccuracy, Confusion
from diagnostics.differing import Classifier
from diagnostics.evaluation.recording import Recording
from diagnostics.tables.table import Cell, Column, Table, grouped, percent

NO_IMAGE = "No test image of this class."


def classes(rows: Sequence[ClassAccuracy]) -> Table:
    """Accuracy of each model of the first seed, a row a class."""
    names = list(rows[0].accuracy) if rows else []
    columns = [
        Column("class", "class"),
        Column("number", "number", grouped),
        Column("images", "images", grouped),
        *(Column(name, f"{name}, %", percent()) for name in names),
    ]
    cells = [
        [
            Cell(row.name),
            Cell(row.number),
            Cell(row.images),
            *(Cell(value, note="" if row.images else NO_IMAGE) for value in row.accuracy.values()),
        ]
        for row in (rows if names else [])
    ]
    return Table("classes", "Accuracy by class, models of the first seed.", columns, cells, "No model classifies.")


def confusions(rows: Sequence[Confusion], most: int) -> Table:
    """The most confused pairs of classes, and how many images each model confuses."""
    names = list(rows[0].counts) if rows else []
    columns = [
        Column("label", "is"),
        Column("answer", "is taken for"),
        Column("images", "images of the class", grouped),
        *(Column(name, name, grouped) for name in names),
    ]
    cells = [
        [Cell(row.label), Cell(row.answer), Cell(row.images), *(Cell(count) for count in row.counts.values())]
        for row in rows
    ]
    caption = f"The most confused pairs of classes, at most {most}: images that each model takes so."
    return Table("confusions", caption, columns, cells, "No image is taken for another class.")


def predictions(recording: Recording) -> Table:
    """What every model that classifies answers to every test image, with the probability of its answer."""
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
    cells = []
    for image, (index, file, label) in enumerate(
        zip(recording.indices.tolist(), files, labels.tolist(), strict=True)
    ):
        line = [Cell(index), Cell(file), Cell(names[label])]
        for model in models:
            line += [Cell(names[model.answers[image]]), Cell(round(float(model.sure[image]), 6))]
        cells.append(line)
    return Table("predictions", "Every answer.", columns, cells)
