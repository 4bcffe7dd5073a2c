"""Stage 2 with the teacher's own classifier, behind a linear projector (Chen et al., CVPR 2022, "SimKD").

Theirs is convolutional and stands before pooling; after it a linear one folds into the classifier, so that the
result is an ordinary student. Letters: B batch, S and D dimensions of student and teacher, C classes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dataset.images import Batch
from models.heads import as_linear, classifier
from models.machine import Machine
from training.engine import Measures, Objective, Term, top1_of
from training.features import FrozenFeatures
from training.weights import of_batch


class Projection(Objective):
    """Mean squared error between the projected student features and the teacher's; labels are only reported on.

    Args:
        model: the student, whose classifier becomes projector and teacher classifier in one.
        features: the student's frozen features, (B, S) a batch.
        targets: the teacher's features, (B, D) a batch.
        head: the teacher's classifier, (B, D) to (B, C).
        weights: (N,) how much each training image counts, None for all alike.
    """

    sees_images = False

    def __init__(
        self,
        model: nn.Module,
        features: FrozenFeatures,
        targets: Callable[[Batch], Tensor],
        head: nn.Linear,
        machine: Machine,
        weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.model = model.requires_grad_(False)
        self.features, self.targets = features, targets
        self.image_weights = weights
        self.head = head.requires_grad_(False)
        width = as_linear(classifier(model)[1]).in_features
        self.projector = nn.Linear(width, head.in_features).to(machine.device)

    def train(self, mode: bool = True) -> Projection:
        super().train(mode)
        self.model.eval()
        return self

    def forward(self, batch: Batch) -> dict[str, Term]:
        projected = self.projector(self.features(batch))
        top1 = top1_of(self.head(projected), batch.labels)
        mse = squared_error(projected.float(), self.targets(batch).float(), of_batch(self.image_weights, batch))
        return {"mse": Term(mse, 1.0), "top1": Term(top1)}

    def measure(self) -> Measures:
        own = as_linear(classifier(self.model)[1])
        fold(self.projector, self.head, own)
        return self.features.evaluate(own)


def squared_error(projected: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
    """Mean over all entries of the squared error of (B, D), each image's times its weight of (B,), a scalar."""
    if weights is None:
        return F.mse_loss(projected, target)
    return (F.mse_loss(projected, target, reduction="none").mean(dim=1) * weights).mean()


@torch.no_grad()
def fold(projector: nn.Linear, head: nn.Linear, into: nn.Linear) -> None:
    """Make `into` the head after the projection: W = W_head W_projector, b = W_head b_projector + b_head."""
    into.weight.copy_(head.weight.double() @ projector.weight.double())
    into.bias.copy_(head.weight.double() @ projector.bias.double() + head.bias.double())
