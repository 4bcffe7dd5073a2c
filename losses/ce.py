"""Cross-entropy with labels.

Letters: B batch, C classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .loss import Loss, NonNegative, Samples, Share, Sizes, View


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

    With `prior` the classes' shares are part of the logits while training and not afterwards, so that the network
    answers as if all classes were equally frequent (1: balanced softmax, Ren et al., NeurIPS 2020; others: logit
    adjustment, Menon et al., ICLR 2021).

    Args:
        label_smoothing: share of each label that is spread over all classes
        prior: factor of the log shares of the classes that are added to the logits in training
    """

    needs_labels, needs_logits, needs_teacher = True, True, False

    log_shares: Tensor

    def __init__(self, label_smoothing: Share = 0.0, prior: NonNegative = 0.0) -> None:
        super().__init__()
        self.label_smoothing, self.prior = label_smoothing, prior

    def setup(self, sizes: Sizes) -> None:
        super().setup(sizes)
        if self.prior:
            counts = torch.bincount(sizes.labels.cpu()).double()
            self.register_buffer("log_shares", (counts / counts.sum()).log().float(), persistent=False)

    def forward(self, student: View, teacher: View, samples: Samples) -> Tensor:
        logits = student.logits.float()
        if self.prior:
            logits = logits + self.prior * self.log_shares
        return compute_cross_entropy(logits, samples.targets, samples.weights, self.label_smoothing)
