from __future__ import annotations

import sys

import pytest
import torch

from errors import UserError
from models.checkpoint import load
from training.checks import check_phase
from training.job_name import JobName
from training.phases import list_phase_jobs
from training.setup import train_stage

CODE = """
import torch
import torch.nn.functional as F
from torch import nn

class Good(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3)
        self.head = nn.Linear(6, num_classes)
    def forward(self, x):
        return self.head(self.b(self.a(x).relu()).relu().mean(dim=(2, 3)))

class Soft(Good):
    def forward(self, x): return super().forward(x).softmax(dim=1)
class Drawing(Good):
    def forward(self, x): return super().forward(F.dropout(x))
class OfBatch(Good):
    def forward(self, x): return super().forward((x - x.mean(dim=0)) / (x.std(dim=0, unbiased=False) + 1))
class Double(Good):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.double()
class Frozen(Good):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.a.requires_grad_(False)
class AllFrozen(Good):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.requires_grad_(False)
"""


@pytest.fixture
def own(tmp_path, monkeypatch) -> str:
    """A module in the working directory, under a name that no other test has imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    name = f"own_network_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(CODE, encoding="utf-8")
    return name


def check(experiment) -> None:
    check_phase("all", experiment, list_phase_jobs("all", experiment.config, experiment.folder))


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        ("Soft", "it gives probabilities where logits are wanted"),
        ("Drawing", "answers the same images differently each time"),
        ("OfBatch", "its answer to an image depends on the others of the batch"),
        ("AllFrozen", "AllFrozen freezes all of it itself"),
    ],
)
def test_a_network_that_is_not_what_it_seems_is_refused(own, make_experiment, network, reason) -> None:
    with pytest.raises(UserError, match=reason):
        check(make_experiment(f"student.arch={own}:{network}", "methods=[scratch]"))


@pytest.mark.parametrize("network", ["Good", "Double", "Frozen"])
def test_own_networks_pass_and_train_in_float32(own, make_experiment, network) -> None:
    experiment = make_experiment(f"student.arch={own}:{network}", "methods=[scratch]", "training.epochs=1")
    check(experiment)
    job = JobName("scratch", 0, 1)
    start = experiment.build_student(0).state_dict()
    train_stage(experiment, job)
    end = load(experiment.folder.get_job(job).model)
    assert {value.dtype for value in end.values()} == {torch.float32}
    assert torch.equal(start["a.weight"], end["a.weight"]) == (network == "Frozen")
    assert not torch.equal(start["b.weight"], end["b.weight"])
