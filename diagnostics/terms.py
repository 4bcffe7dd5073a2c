"""Names of what a training measured in each epoch: terms of its losses, accuracies, agreement of features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

SPLITS = ("train", "val", "test")
History = Sequence[Mapping[str, float]]


def list_measures(history: History) -> list[str]:
    """Return everything that was measured, in the order in which it came."""
    names = dict.fromkeys(name for epoch in history for name in epoch)
    return [name for name in names if name not in ("epoch", "learning_rate")]


def is_accuracy(name: str) -> bool:
    """Return whether a measure is a share of right answers."""
    return name in ("top1", *(f"{split}_top1" for split in SPLITS))


def list_terms(history: History) -> list[str]:
    """Return the terms of the losses, their sum first, and how features agree, without means over splits."""
    hidden = [f"{split}_loss" for split in SPLITS]
    return [name for name in list_measures(history) if not is_accuracy(name) and name not in hidden]
