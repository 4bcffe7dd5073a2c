"""The simplest objective: cross-entropy of a whole network, as a stage with the loss `ce` alone has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dataset.prepare import TrainingData
from losses.ce import CE
from models.layout import Trained
from models.machine import Machine
from settings.stages import Stage
from training.reading import Reading
from training.stage import StageObjective, StageStudent


class CrossEntropy(StageObjective):
    def __init__(
        self, model: nn.Module, data: TrainingData, machine: Machine, weights: Tensor | None = None
    ) -> None:
        student = StageStudent(model, Trained(list(model.parameters()), [model]), Reading({}, {}))
        super().__init__(student, None, {"ce": CE()}, Stage(), data, machine, weights)


def copy_tensors(objective: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters and buffers by name."""
    return {name: value.clone() for name, value in objective.state_dict().items() if torch.is_tensor(value)}


def assert_same(first: Mapping[str, Any], second: Mapping[str, Any]) -> None:
    """Assert that two state dicts hold the same bits."""
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]) if torch.is_tensor(value) else value == second[name], name
