"""Of models/structure.py, models/heads.py and models/sizes.py."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import list_models

from errors import UserError
from models.heads import classifier, name_classifier, outputs_of, replace_classifier
from models.layout import infer_layout
from models.sizes import Weightless, build_for, smallest_size
from models.structure import find_last_layer, find_structure, watch
from models.zoo import build_model
from tests.models.table import MODES, examine, network


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
def test_stages_train_what_they_say_with_default_taps(arch: str, taps: list[str]) -> None:
    row = examine(arch)
    assert row.taps == taps and row.faults == []
    assert row.reads_vector == (arch != "squeezenet1_1")
    assert 0 < row.trained["head"] < row.trained["last_block"] < row.trained["all"] == 1
    assert row.trained["features"] == pytest.approx(1 - row.trained["head"])
    assert {"features", *row.wrong} == set(MODES)
    assert row.stages and set(row.stages) <= {name for name, _ in network(arch, row.size).named_modules()}


@pytest.mark.parametrize(
    ("arch", "size", "taps"),
    [
        ("swin_t", 64, ["features.7.0", "head:input"]),
        ("swin_v2_t", 64, ["features.7.0", "head:input"]),
        ("maxvit_t", 224, ["blocks.2", "classifier.5:input"]),
        ("googlenet", 64, ["inception5a", "fc:input"]),
        ("inception_v3", 96, ["Mixed_7b", "fc:input"]),
        ("densenet121", 64, ["features.transition3", "classifier:input"]),
        ("regnet_x_400mf", 64, ["trunk_output.block4.block4-10", "fc:input"]),
        ("resnet18", 32, ["layer4.0", "fc:input"]),
        ("convnext_tiny", 64, ["features.7.1", "classifier.2:input"]),
        ("efficientnet_b0", 64, ["features.6.3", "classifier.1:input"]),
    ],
)
def test_default_taps_come_from_the_structure(arch: str, size: int, taps: list[str]) -> None:
    with Weightless():
        model = build_model(arch, 5, image_size=size)
    assert default_taps(model, size) == taps


def default_taps(model: nn.Module, size: int) -> list[str]:
    layout = infer_layout(copy.deepcopy(model).to("meta"), size)
    return [layout.place("penultimate"), layout.place("last")]


def test_eighty_classifiers_are_known() -> None:
    import torchvision.models

    assert len(list_models(module=torchvision.models)) == 80


def test_auxiliary_outputs_are_left_out_in_training_too() -> None:
    model = build_model("googlenet", 5).train()
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 5)
    assert not [name for name, _ in model.named_parameters() if name.startswith("aux")]


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


class Inside(nn.Module):
    """Blocks one level down, beside a side branch that the logits do not go through alone."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)  # defined before all that it follows
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.encoder = nn.Sequential(Residual(), Residual(), Residual())
        self.side = Residual()
        self.gate = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.encoder(self.stem(x))
        x = x + self.side(x)
        x = x.mean(dim=(2, 3))
        return self.fc(x * self.gate(x).sigmoid())


def test_what_a_path_goes_around_is_not_on_the_trunk() -> None:
    model = Inside()
    trunk = watch(model, 8).trunk()
    assert trunk == {"stem", "encoder", "encoder.0", "encoder.1", "encoder.2", "fc"}
    assert find_structure(model, 8).blocks == ["encoder.0", "encoder.1", "encoder.2"]


def test_the_classifier_is_the_last_layer_that_runs() -> None:
    model = Inside()
    assert classifier(model)[0] == "gate" and find_last_layer(model, 8) == "fc"
    name_classifier(model, "fc")
    assert classifier(model) == ("fc", model.fc)
    assert default_taps(model, 8) == ["encoder.1", "fc:input"]
    found = find_structure(model, 8)
    assert (found.head, found.before_last, found.stages) == ("fc", "encoder.1", ["encoder"])
    assert found.reads_vector


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.fc(self.conv(x).mean(dim=(2, 3)))


def test_a_classifier_with_something_behind_it_reads_no_vector_for_others() -> None:
    found = find_structure(Scaled(), 8)
    assert not found.reads_vector and found.before_last is None and found.blocks == []


def test_a_network_is_left_as_it_was() -> None:
    model = Inside().train()
    model.encoder.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    watch(model, 8)
    find_structure(model, 8)
    assert modes == [module.training for module in model.modules()]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_classifier_is_replaced_in_its_own_form() -> None:
    model = build_model("squeezenet1_1", 5)
    head = classifier(model)[1]
    assert isinstance(head, nn.Conv2d) and (head.in_channels, outputs_of(head)) == (512, 5)
    replace_classifier(model, 5)
    assert classifier(model)[1] is head
    with pytest.raises(UserError, match="no linear layer and no convolution"):
        classifier(nn.Sequential(nn.Flatten()))


@pytest.mark.parametrize(("arch", "smallest"), [("alexnet", 63), ("vit_b_32", 32), ("resnet8", 1)])
def test_the_smallest_size_is_named(arch: str, smallest: int) -> None:
    def build(size: int) -> nn.Module:
        return build_model(arch, 4, image_size=size)

    assert smallest_size(build, 0) == smallest
    if smallest > 1:
        with pytest.raises(UserError, match=f"the smallest image_size that works is {smallest}$"):
            build_for(build, smallest - 2)
    assert isinstance(build_for(build, smallest), nn.Module)


def test_where_no_size_helps_none_is_named() -> None:
    with pytest.raises(UserError, match=r"unknown arch 'nope'[^:]*:callable are taken too\)$"):
        build_for(lambda size: build_model("nope", 4), 32)
