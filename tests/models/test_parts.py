from __future__ import annotations

import pytest
import torch
from torch import nn

from errors import UserError
from models.heads import classifier
from models.parts import Trained, depends_on, modules_after, part_of, share_of, untrained_by_both
from models.sizes import Weightless
from models.taps import default_taps
from models.zoo import build_model

LARGE = ("vgg11", "vit_b_32", "convnext_tiny")
VGG_TAPS = ["features.10", "features.20"]


def names(model: nn.Module, parameters: list[nn.Parameter]) -> set[str]:
    chosen = {id(parameter) for parameter in parameters}
    return {name for name, parameter in model.named_parameters() if id(parameter) in chosen}


def network(arch: str, size: int) -> nn.Module:
    """A large one has no values: nothing here asks for them, and drawing them takes longer than all else."""
    torch.manual_seed(0)
    if arch in LARGE:
        with Weightless():
            return build_model(arch, 10, image_size=size).to("meta")
    return build_model(arch, 10, image_size=size)


@pytest.mark.parametrize(
    ("arch", "size"),
    [
        ("resnet8", 16),
        ("resnet18", 32),
        ("shufflenet_v2_x0_5", 64),
        ("mobilenet_v3_small", 64),
        ("efficientnet_b0", 64),
        ("convnext_tiny", 32),
        ("vit_b_32", 32),
    ],
)
@pytest.mark.parametrize("trained", ["head", "last_block"])
def test_with_default_taps_both_stages_reach_every_parameter(arch: str, size: int, trained: Trained) -> None:
    # With the last block's end as the deeper tap 56 % of shufflenet_v2_x0_5 and 42 % of mobilenet_v3_small stayed
    # at their initial values.
    model = network(arch, size)
    assert untrained_by_both(model, default_taps(model, size), trained, size) == []


def test_a_named_tap_that_leaves_parameters_out_is_measured() -> None:
    model = network("vgg11", 32)
    left = untrained_by_both(model, VGG_TAPS, "head", 32)
    assert names(model, left) == {f"classifier.{n}.{kind}" for n in (0, 3) for kind in ("weight", "bias")}
    assert share_of(left, model) == pytest.approx(0.928, abs=0.001)
    assert untrained_by_both(model, VGG_TAPS, "last_block", 32) == []
    assert untrained_by_both(model, ["features.10", "classifier.6:input"], "head", 32) == []


def test_the_last_block_is_what_stands_behind_the_block_before_it() -> None:
    model = network("resnet20", 16)
    part = part_of(model, "last_block", default_taps(model, 16), 16)
    expected = {name for name, _ in model.named_parameters() if name.startswith(("layer3.2", "fc"))}
    assert names(model, part.parameters) == expected
    block = model.get_submodule("layer3.2")
    inside = {id(block.get_submodule(name)) for name in ("conv1", "bn1", "conv2", "bn2")}
    assert inside < set(map(id, part.modules))
    # taps that are named elsewhere do not move it
    assert names(model, part_of(model, "last_block", ["layer1.0", "layer2.0"], 16).parameters) == expected


def test_layers_between_the_last_block_and_the_head_belong_to_it() -> None:
    model = network("mobilenet_v3_small", 64)
    part = part_of(model, "last_block", default_taps(model, 64), 64)
    places = {".".join(name.split(".")[:2]) for name in names(model, part.parameters)}
    assert places == {"features.11", "features.12", "classifier.0", "classifier.3"}
    assert any(module is model.get_submodule("classifier.2") for module in part.modules)  # its dropout


def test_head_and_all() -> None:
    model = network("vgg11", 32)
    head = classifier(model)[1]
    part = part_of(model, "head", None, 32)
    assert names(model, part.parameters) == {"classifier.6.weight", "classifier.6.bias"} and part.modules == [head]
    assert len(part_of(model, "all", None, 32).parameters) == len(list(model.parameters()))


def test_a_last_block_of_nothing_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 5), nn.ReLU(), nn.Linear(5, 2))
    with pytest.raises(UserError, match="nothing stands between 2 and the head"):
        part_of(model, "last_block", ["2", "3:input"], 4)
    assert len(part_of(model, "last_block", ["0", "3:input"], 4).parameters) == 4


def test_asking_leaves_no_trace() -> None:
    model = network("resnet8", 16).train()
    model.fc.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [parameter.requires_grad for parameter in model.parameters()]
    depends_on(model, ["layer1.0"], 16)
    modules_after(model, "layer1.0", 16)
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
