"""Softmax regression representation learning (Yang, Martinez, Bulat & Tzimiropoulos, ICLR 2021).

L = α mean over entries of (f̂ − f')² + β mean over entries of (W' f̂ + b' − z')². f̂ is the average of h(F) over the
map, F the student's last map, h a 1x1 convolution with batch norm and ReLU that is discarded afterwards. f', z',
W' and b' are the teacher's feature, logits and frozen classifier.

Letters: B batch, D channels of the teacher's feature, C classes.
"""

from __future__ import annotations

from torch import Tensor, nn

from .loss import Loss, NonNegative, Samples, Sizes, View
from .reuse import compute_squared_error


def compute_srrl(
    student: Tensor,
    teacher: Tensor,
    student_logits: Tensor,
    teacher_logits: Tensor,
    alpha: float,
    beta: float,
    weights: Tensor | None = None,
) -> Tensor:
    """Return α times the features' squared error plus β times the logits'.

    Args:
        student: (B, D), projected.
        teacher: (B, D).
        student_logits: (B, C), the teacher's classifier's of `student`.
        teacher_logits: (B, C), the teacher's classifier's of `teacher`.
        alpha: weight of the features.
        beta: weight of the logits.
        weights: (B,) that multiply each image's term.
    """
    features = compute_squared_error(student, teacher, weights)
    return alpha * features + beta * compute_squared_error(student_logits, teacher_logits, weights)


class SRRL(Loss):
    """Squared error of projected features to the teacher's, as they are and behind the teacher's classifier.

    Args:
        tap: last map, which the classifier reads pooled
        alpha: weight of the features
        beta: weight of the teacher's classifier's answers to them
    """

    needs_maps = needs_classifier = True

    def __init__(self, tap: str = "last_stage", alpha: NonNegative = 1.0, beta: NonNegative = 1.0) -> None:
        super().__init__()
        self.tap, self.alpha, self.beta = tap, alpha, beta
        self.taps = {tap: 1.0}

    def setup(self, sizes: Sizes) -> None:
        channels, wanted = sizes.student[self.tap][0], sizes.teacher[self.tap][0]
        layer = nn.Conv2d(channels, wanted, 1, bias=False)
        self.connector = nn.Sequential(layer, nn.BatchNorm2d(wanted), nn.ReLU())

    def forward(self, student: View, teacher: View, samples: Samples) -> Tensor:
        own = self.connector(student.maps[self.tap]).float().mean(dim=(2, 3))
        other = teacher.maps[self.tap].float().mean(dim=(2, 3))
        head = teacher.classifier
        assert isinstance(head, nn.Linear)  # as asked for above
        if other.shape[1] != head.in_features:
            raise ValueError(
                f"srrl.tap: {self.tap} has {other.shape[1]} channels and the teacher's classifier reads "
                f"{head.in_features}: name the last stage"
            )
        answers = head(own).float(), head(other).float()
        return compute_srrl(own, other, *answers, self.alpha, self.beta, samples.weights)
