"""Cross-entropy with labels.

Letters: B batch, C classes.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .loss import Loss, Samples, Share, View


def compute_cross_entropy(
    logits: Tensor, labels: Tensor, weights: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """Return the cross-entropy in nats of logits (B, C), mean over the batch.

    Args:
        logits: (B, C).
        labels: (B,) classes or (B, C) shares of classes.
        weights: (B,) that multiply each image's term, which is still divided by B.
        smoothing: share in 0..1 of each label that is spread evenly over all classes (Szegedy et al., CVPR 2016).
    """
    if weights is None:
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)
    return (F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing) * weights).mean()


class CE(Loss):
    """Cross-entropy with the labels.

    Args:
        label_smoothing: share of each label that is spread over all classes
    """

    needs_labels, needs_logits, needs_teacher = True, True, False

    def __init__(self, label_smoothing: Share = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, student: View, teacher: View, samples: Samples) -> Tensor:
        return compute_cross_entropy(
            student.logits.float(), samples.targets, samples.weights, self.label_smoothing
        )
