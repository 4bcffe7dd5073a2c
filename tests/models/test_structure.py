"""Of models/structure.py and models/heads.py."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from errors import UserError
from models.heads import count_outputs, find_classifier, name_classifier, replace_classifier
from models.layout import infer_layout
from models.structure import find_last_layer, find_structure, trace_network
from models.zoo import build_model
from tests.models.table import MODES, build_network, examine


# one of each family that is quick; `python -m tests.models.table` does all 80
@pytest.mark.parametrize(
    ("arch", "taps"),
    [
        ("squeezenet1_1", ["features.11", "classifier.1:input"]),
        ("shufflenet_v2_x0_5", ["stage4.2", "fc:input"]),
        ("mobilenet_v3_small", ["features.10", "classifier.3:input"]),
        ("mnasnet0_5", ["layers.12.3", "classifier.1:input"]),
        ("vgg11", ["features", "classifier.6:input"]),
        ("alexnet", ["features", "classifier.6:input"]),
    ],
)
def test_stages_train_their_part_of_each_family(arch: str, taps: list[str]) -> None:
    row = examine(arch)
    assert row.taps == taps and row.faults == []
    assert row.reads_vector == (arch != "squeezenet1_1")
    assert 0 < row.trained["head"] < row.trained["last_block"] < row.trained["all"] == 1
    assert row.trained["features"] == pytest.approx(1 - row.trained["head"])
    assert {"features", *row.wrong} == set(MODES)
    assert row.stages and set(row.stages) <= {name for name, _ in build_network(arch, row.size).named_modules()}


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


class Gated(nn.Module):
    """Blocks one level down, beside side branches that paths to the logits go around."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)  # defined first, run last
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.encoder = nn.Sequential(Residual(), Residual(), Residual())
        self.side = Residual()
        self.gate = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.encoder(self.stem(x))
        x = x + self.side(x)
        x = x.mean(dim=(2, 3))
        return self.fc(x * self.gate(x).sigmoid())


def test_side_branches_are_not_on_the_trunk() -> None:
    model = Gated()
    trunk = trace_network(model, 8).find_trunk()
    assert trunk == {"stem", "encoder", "encoder.0", "encoder.1", "encoder.2", "fc"}
    assert find_structure(model, 8).blocks == ["encoder.0", "encoder.1", "encoder.2"]


def test_classifier_is_the_last_layer_that_runs() -> None:
    model = Gated()
    assert find_classifier(model)[0] == "gate" and find_last_layer(model, 8) == "fc"
    name_classifier(model, "fc")
    assert find_classifier(model) == ("fc", model.fc)
    found = find_structure(model, 8)
    assert (found.head, found.before_last, found.stages) == ("fc", "encoder.1", ["encoder"])
    assert found.reads_vector and infer_layout(model, 8).find_place("last") == "fc:input"


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.fc(self.conv(x).mean(dim=(2, 3)))


def test_logits_scaled_behind_the_classifier_read_no_vector() -> None:
    found = find_structure(Scaled(), 8)
    assert not found.reads_vector and found.before_last is None and found.blocks == []


def test_tracing_leaves_the_network_unchanged() -> None:
    model = Gated().train()
    model.encoder.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    find_structure(model, 8)
    assert modes == [module.training for module in model.modules()]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_convolutional_classifier_is_replaced_by_one() -> None:
    model = build_model("squeezenet1_1", 5)
    head = find_classifier(model)[1]
    assert isinstance(head, nn.Conv2d) and (head.in_channels, count_outputs(head)) == (512, 5)
    replace_classifier(model, 5)
    assert find_classifier(model)[1] is head
    with pytest.raises(UserError, match="no linear layer and no convolution"):
        find_classifier(nn.Sequential(nn.Flatten()))
