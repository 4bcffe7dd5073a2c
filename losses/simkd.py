"""Distillation with the teacher's classifier reused (Chen, Mei, Zhang, Wang, Feng & Chen, CVPR 2022, "SimKD").

L = mean over entries of (P(F) − F')², F the student's last map and F' the teacher's. The student answers by
W' GAP(P(F)) + b', the teacher's classifier. The connector P and that classifier stay in the student
(`models/connector.py`), so the map that is read here is P(F). No label and no logit is used.

Letters: B batch, C channels, S side of a map.
"""

from __future__ import annotations

from types import MappingProxyType

from torch import Tensor

from .fitnet import compute_fitnet
from .loss import Loss, Samples, View
from .maps import match_sides

TAP = "last_stage"


class SimKD(Loss):
    """Squared error of the student's last map, behind a connector that it keeps, to the teacher's."""

    needs_maps = needs_classifier = needs_connector = True
    taps = MappingProxyType({TAP: 1.0})

    def forward(self, student: View, teacher: View, samples: Samples) -> Tensor:
        return compute_fitnet(*match_sides(student.maps[TAP].float(), teacher.maps[TAP].float()), samples.weights)
