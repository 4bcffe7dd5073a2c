"""Names of what a training measured in each epoch: terms of its losses, accuracies, agreement of features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

KINDS = {  # of measures of features, by how their names begin; behind it stands the tap
    "cosine_": "cosine, projections",
    "explained_": "variance explained",
    "cka_": "linear CKA",
}
SPLITS = ("train", "val", "test")
ACCURACY, LOSS = "top-1, %", "loss"
History = Sequence[Mapping[str, float]]


def list_measures(history: History) -> list[str]:
    """Return everything that was measured, in the order in which it came."""
    names = dict.fromkeys(name for epoch in history for name in epoch)
    return [name for name in names if name not in ("epoch", "learning_rate")]


def kind_of(name: str) -> str:
    """Return the heading that a measure stands under: what is known by no other is a term of a loss."""
    if is_accuracy(name):
        return ACCURACY
    return next((heading for begin, heading in KINDS.items() if name.startswith(begin)), LOSS)


def is_accuracy(name: str) -> bool:
    """Return whether a measure is a share of right answers."""
    return name in ("top1", *(f"{split}_top1" for split in SPLITS))


def list_terms(history: History) -> list[str]:
    """Return the terms of the losses, their sum first."""
    of_splits = [f"{split}_loss" for split in SPLITS]
    return [name for name in list_measures(history) if kind_of(name) == LOSS and name not in of_splits]


def group_measures(history: History) -> dict[str, list[str]]:
    """Return names of measures by heading: accuracies, losses with their terms, and how features agree."""
    groups: dict[str, list[str]] = {heading: [] for heading in (ACCURACY, LOSS, *KINDS.values())}
    for name in list_measures(history):
        groups[kind_of(name)].append(name)
    return {heading: names for heading, names in groups.items() if names}
