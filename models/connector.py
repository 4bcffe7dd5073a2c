"""A student that answers through a connector and its teacher's classifier (Chen et al., CVPR 2022, "SimKD").

The connector brings the student's last map to the teacher's number of channels and stays in the student, which is
evaluated, measured and exported with it.

Letters: B batch, C channels, H x W map, S side of a map in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.heads import find_classifier
from models.taps import observe_tap


@dataclass(frozen=True)
class ConnectorSizes:
    """Shapes that a connector joins.

    Args:
        place: name of the student's last map.
        student: shape (C, H, W) of that map for one image.
        teacher: the shape of the teacher's last map.
        classes: outputs of the teacher's classifier.
    """

    place: str
    student: tuple[int, ...]
    teacher: tuple[int, ...]
    classes: int


class ConnectedStudent(nn.Module):
    """A network with a connector and a classifier of the teacher's size behind its last map.

    Args:
        student: the network, whose own classifier is removed.
        sizes: shapes of the maps to join.
    """

    def __init__(self, student: nn.Module, sizes: ConnectorSizes) -> None:
        super().__init__()
        name = find_classifier(student)[0]
        parent, _, child = name.rpartition(".")
        setattr(student.get_submodule(parent), child, nn.Identity())
        self.student = student
        self.connector = build_connector(sizes)
        self.classifier = nn.Linear(sizes.teacher[0], sizes.classes)
        self.place = sizes.place
        self.observed = [f"student.{sizes.place}"]  # places that a compiled block must not hide

    def forward(self, images: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, classes)
        seen: list[Tensor] = []
        with observe_tap(self.student, self.place, seen.append):
            self.student(images)
        features = self.connector(seen[-1])  # (B, C of the teacher, S, S)
        logits: Tensor = self.classifier(torch.flatten(F.adaptive_avg_pool2d(features, 1), 1))
        return logits


def build_connector(sizes: ConnectorSizes) -> nn.Sequential:
    """Build 1x1, 3x3 and 1x1 convolutions with batch norm and ReLU.

    The first two have half of the teacher's channels. A map larger than the teacher's is pooled to its size first.
    """
    (channels, side, _), (wanted, target, _) = sizes.student, sizes.teacher
    narrow = max(wanted // 2, 1)
    layers: list[nn.Module] = [nn.AdaptiveAvgPool2d(target)] if side > target else []
    for before, after, kernel in ((channels, narrow, 1), (narrow, narrow, 3), (narrow, wanted, 1)):
        layers += [
            nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)
