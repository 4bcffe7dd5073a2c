"""The teacher's classifier behind a linear projector, on frozen features (after Chen et al., CVPR 2022, "SimKD").

Theirs is convolutional and stands before pooling. After pooling a linear one folds into the classifier, so the
result is an ordinary student. Letters: B batch, S and D dimensions of student and teacher, C classes.
"""

from __future__ import annotations

from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .loss import Loss, Samples, Sizes, View

TAP = "features"  # what a classifier reads


def compute_squared_error(projected: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
    """Return the mean squared error of (B, D), images weighted by (B,)."""
    if weights is None:
        return F.mse_loss(projected, target)
    return (F.mse_loss(projected, target, reduction="none").mean(dim=1) * weights).mean()


@torch.no_grad()
def fold(projector: nn.Linear, head: nn.Module, into: nn.Module) -> None:
    """Make `into` the head after the projection, W = W_head W_projector."""
    assert isinstance(head, nn.Linear) and isinstance(into, nn.Linear)  # other classifiers are refused before
    into.weight.copy_(head.weight.double() @ projector.weight.double())
    into.bias.copy_(head.weight.double() @ projector.bias.double() + head.bias.double())


class Reuse(Loss):
    """Squared error of the projected feature to the teacher's; the student answers by the teacher's classifier."""

    needs_classifier = replaces_classifier = True
    taps = MappingProxyType({TAP: 1.0})

    def setup(self, sizes: Sizes) -> None:
        self.projector = nn.Linear(sizes.student[TAP][0], sizes.teacher[TAP][0])

    def forward(self, student: View, teacher: View, samples: Samples) -> Tensor:
        projected = self.projector(student.taps[TAP])
        return compute_squared_error(projected.float(), teacher.taps[TAP].float(), samples.weights)

    def predict_logits(self, student: View, teacher: View) -> Tensor:
        assert teacher.classifier is not None  # as asked for above
        answer: Tensor = teacher.classifier(self.projector(student.taps[TAP]))
        return answer

    def fold_into(self, classifier: nn.Module, teachers: nn.Module) -> None:
        fold(self.projector, teachers, classifier)
