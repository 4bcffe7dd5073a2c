"""Accuracy by class, and the pairs of classes that models confuse.

Letters: N test images, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from diagnostics.differing import Classifier, find_main_model

MOST_CONFUSED = 20  # pairs of classes that are kept


@dataclass(frozen=True)
class ClassAccuracy:
    """One class: its test images and the share in 0..1 of them that each model gets right, None without any."""

    number: int
    name: str = field(metadata={"key": "class"})
    images: int
    accuracy: dict[str, float | None]


@dataclass(frozen=True)
class Confusion:
    """Images of one class that get the answer of another, counted by model."""

    label: str
    answer: str
    images: int  # of the class
    counts: dict[str, int]  # by model


def measure_classes(
    models: Sequence[Classifier], labels: NDArray[np.int64], classes: Sequence[str]
) -> list[ClassAccuracy]:
    """Return the accuracy of every class, in the order of the classes."""
    count = len(classes)
    images = np.bincount(labels, minlength=count)  # (C,)
    right = {model.name: np.bincount(labels[model.answers == labels], minlength=count) for model in models}
    return [
        ClassAccuracy(
            number,
            name,
            int(images[number]),
            {model: float(r[number] / images[number]) if images[number] else None for model, r in right.items()},
        )
        for number, name in enumerate(classes)
    ]


def find_confusions(
    models: Sequence[Classifier], labels: NDArray[np.int64], classes: Sequence[str], most: int = MOST_CONFUSED
) -> list[Confusion]:
    """Return confused pairs (class, answer), the main student's most first.

    Ties are broken by all models together; a pair that no model confuses is left out.
    """
    if not models:
        return []
    count = len(classes)
    images = np.bincount(labels, minlength=count)
    tables = {
        model.name: np.bincount(labels * count + model.answers, minlength=count**2).reshape(count, count)
        for model in models
    }  # (C, C) each, rows are labels
    total = np.sum(list(tables.values()), axis=0)
    np.fill_diagonal(total, 0)
    rows, columns = np.nonzero(total)
    own = tables[find_main_model(models)]
    order = np.lexsort((columns, rows, -total[rows, columns], -own[rows, columns]))[:most]
    return [
        Confusion(
            classes[row],
            classes[column],
            int(images[row]),
            {name: int(table[row, column]) for name, table in tables.items()},
        )
        for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True)
    ]
