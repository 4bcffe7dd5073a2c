"""Accuracy and cross-entropy of a network on held-out images.

Letters: N images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dataset.images import ImageTensors
from dataset.prepare import TrainingData
from models.machine import Machine
from training import distributed

EVALUATION_BATCH = 128  # on a CPU maps of 500 images leave its caches: resnet20 took 1.4 times as long in float32

Measures = dict[str, float]


@torch.no_grad()
def predict(model: nn.Module, images: ImageTensors, machine: Machine) -> Tensor:
    """Return a network's logits for images in order, (N, classes) float32.

    All processes share the work."""
    was_training = model.training
    model.eval()
    parts = torch.arange(len(images), device=images.device).split(EVALUATION_BATCH)
    with machine.autocast():
        logits = distributed.parallel_map(parts, lambda part: model(images.load_normalised(part)).float())
    model.train(was_training)
    return logits


def evaluate(model: nn.Module, images: ImageTensors, machine: Machine, prefix: str) -> Measures:
    """Return `measure_logits` of a network on images."""
    return measure_logits(predict(model, images, machine), images.labels, prefix)


def compute_top1(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the accuracy of logits (N, classes), a float64 scalar in 0..1."""
    return (logits.argmax(dim=1) == labels).double().mean()


def measure_logits(logits: Tensor, labels: Tensor, prefix: str) -> Measures:
    """Return top-1 accuracy in 0..1 and mean cross-entropy in nats of logits."""
    return {
        f"{prefix}_top1": compute_top1(logits, labels).item(),
        f"{prefix}_loss": F.cross_entropy(logits, labels).item(),
    }


def evaluate_splits(model: nn.Module, data: TrainingData, machine: Machine) -> Measures:
    """Return `evaluate` on validation images, where there are some, and test images."""
    measures = {} if data.val is None else evaluate(model, data.val, machine, "val")
    return measures | evaluate(model, data.test, machine, "test")


def find_best_test_epoch(history: Sequence[Mapping[str, float]]) -> Measures:
    """Return the highest test top-1 of all epochs, and the first epoch that has it.

    It is chosen on test images, so it is optimistic: nothing may be chosen by it. Empty where none was measured.
    """
    measured = [epoch for epoch in history if "test_top1" in epoch]
    if not measured:
        return {}
    best = max(measured, key=lambda epoch: epoch["test_top1"])
    return {"best_test_top1": best["test_top1"], "best_test_epoch": best["epoch"]}


def show_measures(measures: Mapping[str, float], separator: str = ", ") -> str:
    """Return measures as printed lines have them: "loss 1.234, test top-1 56.25 %"."""
    return separator.join(_show_measure(name.replace("_", " "), value) for name, value in measures.items())


def _show_measure(title: str, value: float) -> str:
    if title.split()[-1] == "top1":
        return f"{title.removesuffix('top1')}top-1 {100 * value:.1f} %"
    return f"{title} {value:.4g}"
