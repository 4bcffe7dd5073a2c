"""A batch that any loss can be asked about: logits and features of two networks that resemble each other."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from losses.loss import Samples, Sizes, View

CLASSES = 4
LABELS = torch.arange(20) % CLASSES  # of the training images
WIDTHS = (
    {"penultimate": (3,), "last": (4,), "features": (4,)},
    {"penultimate": (5,), "last": (6,), "features": (6,)},
)
MAPS = (
    {"stage1": (2, 4, 4), "stage2": (3, 2, 2), "stage3": (4, 2, 2), "last_stage": (6, 4, 4)},
    {"stage1": (3, 4, 4), "stage2": (2, 4, 4), "stage3": (6, 2, 2), "last_stage": (6, 2, 2)},
)
SIZES = Sizes(WIDTHS[0] | MAPS[0], WIDTHS[1] | MAPS[1], labels=LABELS)
NAMES = ("penultimate", "last", "features")


class Batch(NamedTuple):
    """Arguments of `Loss.forward`."""

    student: View
    teacher: View
    samples: Samples


def make_batch(seed: int, count: int = 6, weighted: bool = False) -> Batch:
    """Return a batch of `count` of the training images, float32; with weights their mean is about 1."""
    source = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=source)

    shared = draw(count, 8)
    views = []
    for widths in WIDTHS:
        taps = {name: shared[:, : widths[name][0]] + 0.5 * draw(count, widths[name][0]) for name in NAMES}
        views.append((shared[:, :CLASSES] + 0.5 * draw(count, CLASSES), taps))
    classifier = nn.Linear(WIDTHS[1]["features"][0], CLASSES).requires_grad_(False)
    for parameter in classifier.parameters():
        parameter.copy_(draw(*parameter.shape))
    indices = torch.randperm(len(LABELS), generator=source)[:count]
    weights = 0.1 + 2 * torch.rand(count, generator=source) if weighted else None
    samples = Samples(indices, LABELS[indices], LABELS[indices], weights)
    maps = [{tap: draw(count, *shape).relu() for tap, shape in shapes.items()} for shapes in MAPS]
    return Batch(View(*views[0], maps[0]), View(*views[1], maps[1], classifier), samples)


def normalise_rows(vectors: Tensor) -> Tensor:
    """Return vectors (..., D) divided by their lengths."""
    return vectors / vectors.pow(2).sum(dim=-1, keepdim=True).sqrt()
