from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from errors import UserError
from models.heads import find_classifier
from models.zoo import build_model, find_published

CODE = """
import os, subprocess
from functools import partial
from types import SimpleNamespace
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes, width=4, wrapped=False):
        super().__init__()
        self.head = nn.Linear(width, num_classes)
        self.a, self.b = nn.Conv2d(3, width, 3), nn.Conv2d(width, width, 3)
        self.unused = nn.Linear(2, 2)
        self.wrapped = wrapped
    def forward(self, x):
        logits = self.head(self.b(self.a(x).relu()).mean(dim=(2, 3)))
        return SimpleNamespace(logits=logits) if self.wrapped else logits

def pair(num_classes): return PairNet(num_classes)
class PairNet(Net):
    def forward(self, x): return (super().forward(x), 1)
def fixed(): return Net(7)
def softened(num_classes): return nn.Sequential(Net(num_classes), nn.Flatten(), nn.Linear(num_classes, 2), Two())
class Two(nn.Module):
    def forward(self, x): return torch.cat([x, x], dim=1)
wide = partial(Net, width=9)
class Other: pass
def annotated(num_classes) -> int: raise AssertionError
def nothing(num_classes): return 3
def broken(num_classes): raise RuntimeError("out of paint")
def sized(num_classes, image_size, **rest):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * image_size**2, num_classes))
number = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the working directory, under a name that no other test has imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    name = f"own_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(CODE, encoding="utf-8")
    return name


@pytest.mark.parametrize("wrapped", [False, True])
def test_own_class_is_built_by_its_place(own: str, wrapped: bool, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"width": 6, "wrapped": wrapped}
    model = build_model(f"{own}:Net", 4, image_size=16, options=options)
    assert model(torch.zeros(2, 3, 16, 16)).shape == (2, 4)
    assert find_classifier(model)[0] == "head"  # though another linear layer is defined behind it
    assert find_classifier(model)[1].weight.shape == (4, 6)
    build_model(f"{own}:Net", 4)
    told = capsys.readouterr().err
    assert told.count("which is code of your own") == 1 and f"{own}.py" in told


def test_own_function_gets_what_it_takes(own: str) -> None:
    assert build_model(f"{own}:wide", 4, image_size=8)(torch.zeros(1, 3, 8, 8)).shape == (1, 4)
    assert build_model(f"{own}:sized", 4, image_size=8)(torch.zeros(1, 3, 8, 8)).shape == (1, 4)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("Nett", {}, r"has no Nett, did you mean 'Net'\?"),
        ("number", {}, "number is a int, name a class or a function"),
        ("Other", {}, "Other: it is not called, name a subclass of torch.nn.Module or a function for one"),
        ("annotated", {}, "annotated: it is not called"),
        ("os.system", {"command": "exit 3"}, "os.system: it is not called"),
        ("subprocess.run", {"args": ["false"]}, "subprocess.run: it is not called"),
        ("nothing", {}, r"gives a int, not a torch\.nn\.Module"),
        ("broken", {}, "cannot be built: RuntimeError: out of paint"),
        ("fixed", {}, r"gives \(2, 7\) for 2 images where \(2, 4\) is wanted"),
        ("pair", {}, r"gives a tuple: give the logits \(B, classes\), or an object with \.logits"),
        ("softened", {}, "its last layer 2 gives 2 numbers, not a logit for each of 4 classes"),
        ("Net", {"widht": 6}, "takes no widht, did you mean 'width'"),
        ("Net", {"width": "wide"}, "arch_options {'width': 'wide'} cannot be built"),
        ("Net", {"num_classes": 6}, "num_classes follows from the data"),
    ],
)
def test_faults_of_an_own_network_are_named(own: str, name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build_model(f"{own}:{name}", 4, image_size=16, options=options)
    assert "\n" not in str(caught.value)


def test_unknown_module_and_published_weights_are_refused(own: str) -> None:
    with pytest.raises(UserError, match="no module no_such_module, neither installed nor in"):
        build_model("no_such_module:Net", 4)
    with pytest.raises(UserError, match="has no published weights"):
        build_model(f"{own}:Net", 4, weights="DEFAULT")


def test_missing_timm_is_named_with_its_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"timm is not installed: pip install -r requirements-timm\.txt"):
        build_model("timm/vit_tiny_patch16_224", 4)


@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")
def test_timm_networks_are_built() -> None:
    model = build_model("timm/vit_tiny_patch16_224", 4, image_size=32)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 4)
    assert find_classifier(model)[0] == "head"
    with pytest.raises(UserError, match="did you mean 'vit_tiny"):
        build_model("timm/vit_tiny_patch16_223", 4)
    with pytest.raises(UserError, match="cannot be built: TypeError"):
        build_model("timm/resnet18", 4, options={"no_such": 1})
    found = find_published("timm/vit_tiny_patch16_224", "DEFAULT")
    assert (found.classes, found.size, found.mean) == (1000, 224, (0.5, 0.5, 0.5))
