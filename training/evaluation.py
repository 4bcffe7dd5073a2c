"""Accuracy and cross-entropy of a network on held-out images.

Letters: N images.
"""

from __future__ import annotations

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
    """Return a network's logits in evaluation mode for images in order, (N, classes) float32, by all processes."""
    was_training = model.training
    model.eval()
    parts = torch.arange(len(images), device=images.device).split(EVALUATION_BATCH)
    with machine.autocast():
        logits = distributed.over_processes(parts, lambda part: model(images.normalised(part)).float())
    model.train(was_training)
    return logits


def evaluate(model: nn.Module, images: ImageTensors, machine: Machine, prefix: str) -> Measures:
    """Return top-1 accuracy in 0..1 and mean cross-entropy in nats of a network on `images`."""
    return score(predict(model, images, machine), images.labels, prefix)


def compute_top1(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the share in 0..1 of logits (N, classes) that are largest at their labels (N,), a float64 scalar."""
    return (logits.argmax(dim=1) == labels).double().mean()


def score(logits: Tensor, labels: Tensor, prefix: str) -> Measures:
    """Return top-1 accuracy in 0..1 and mean cross-entropy in nats of logits (N, classes) for labels (N,)."""
    return {
        f"{prefix}_top1": compute_top1(logits, labels).item(),
        f"{prefix}_loss": F.cross_entropy(logits, labels).item(),
    }


def evaluate_splits(model: nn.Module, data: TrainingData, machine: Machine) -> Measures:
    """Return `evaluate` on the validation images, where there are some, and on the test images."""
    measures = {} if data.val is None else evaluate(model, data.val, machine, "val")
    return measures | evaluate(model, data.test, machine, "test")
