from __future__ import annotations

import json
import sys

import pytest
import torch

from errors import UserError
from models.inputs import INPUT_ADAPTER
from models.taps import TappedModel
from training.teacher_cache import name_cache

CODE = """
from torch import nn

class Convolved(nn.Module):
    def __init__(self, num_classes, width=6):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=2), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3)
        )
        self.scores = nn.Conv2d(width, num_classes, 1)

    def forward(self, images):
        return self.scores(self.features(images).relu()).mean(dim=(2, 3))
"""
MEAN, STD = "[0.485,0.456,0.406]", "[0.229,0.224,0.225]"


def test_size_and_normalisation_are_part_of_a_network(make_experiment) -> None:
    plain = make_experiment()
    assert not hasattr(plain.build(plain.config.teacher), INPUT_ADAPTER)
    assert plain.list_dependencies(plain.config.teacher) == {}
    other = make_experiment("teacher.image_size=24", f"teacher.mean={MEAN}", f"teacher.std={STD}")
    network = other.config.teacher
    adapter = other.build(network).get_submodule(INPUT_ADAPTER)
    assert adapter.own.size == 24
    assert (
        adapter.own.mean == pytest.approx((0.485, 0.456, 0.406))
        and other.list_dependencies(network)["input"][0] == 24
    )
    teachers = [TappedModel(plain.build(plain.config.teacher), ["fc:input"]) for _ in range(2)]
    teachers[1].load_state_dict(teachers[0].state_dict())
    assert name_cache(plain, teachers[0]) != name_cache(other, teachers[1])


def test_named_weights_bring_size_and_normalisation(make_experiment) -> None:
    weights = ("student.arch=resnet18", "student.weights=DEFAULT")
    experiment = make_experiment(*weights, "student.image_size=weights")
    seen = experiment.find_input_format(experiment.config.student)
    assert seen.size == 224 and seen.std == pytest.approx((0.229, 0.224, 0.225))
    kept = make_experiment(*weights, "student.mean=data", "student.std=data")
    assert kept.list_dependencies(kept.config.student) == {}


@pytest.mark.parametrize(
    ("setting", "message"),
    [("teacher.mean=data", "mean and std go together"), ("teacher.image_size=weights", "weights needs weights")],
)
def test_half_of_an_input_is_refused(make_experiment, setting, message) -> None:
    with pytest.raises(UserError, match=message):
        make_experiment(setting)


def test_an_own_network_trains_in_all_phases(call_main, tmp_path, monkeypatch) -> None:
    """Its classifier is a convolution with pooling behind it, so stage 2 trains the head through the network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "convolved_student.py").write_text(CODE, encoding="utf-8")
    settings = [
        "student.arch=convolved_student:Convolved",
        "student.arch_options.width=8",
        "methods=[two_stage]",
        "methods.two_stage.stage2.train=head",
        "training.epochs=2",
        "teacher.image_size=20",
        "teacher.cached_views=2",
    ]
    done = call_main(tmp_path, "--phase", "all", "--quiet", "--set", *settings)
    assert done.returncode == 0, done.stderr
    assert "convolved_student.py, which is code of your own" in done.stderr
    folder = tmp_path / "tiny/seed0/two_stage"
    stages = [torch.load(folder / stage / "model.pt", weights_only=True) for stage in ("stage1", "stage2")]
    same = {name for name, value in stages[0].items() if torch.equal(value, stages[1][name])}
    assert set(stages[0]) - same == {"scores.weight", "scores.bias"}
    assert json.loads((folder / "stage2" / "result.json").read_text())["epochs"] == 1
