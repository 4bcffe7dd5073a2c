from __future__ import annotations

import copy
from functools import cache

import pytest
import torch
from torch import nn

from errors import UserError
from models.heads import classifier
from models.layout import Layout, infer_layout
from models.sizes import Weightless
from models.taps import TappedModel
from models.zoo import build_model
from settings.stages import Part
from tests.models.table import leave_untrained, share

LARGE = ("vgg11", "vit_b_32", "convnext_tiny")
STEMS = {"vgg11": "imagenet"}  # torchvision's
VGG_TAPS = {"penultimate": "features.10", "last": "features.20"}


def network(arch: str, size: int) -> nn.Module:
    """A large one has no values: nothing here asks for them, and drawing them takes longer than all else."""
    torch.manual_seed(0)
    if arch in LARGE:
        with Weightless():
            return build_model(arch, 10, stem=STEMS.get(arch, "cifar"), image_size=size).to("meta")
    return build_model(arch, 10, stem=STEMS.get(arch, "cifar"), image_size=size)


@cache
def layout_of(arch: str, size: int) -> Layout:
    return infer_layout(network(arch, size), size)


def tapped(arch: str, size: int, **taps: str) -> Layout:
    return infer_layout(network(arch, size), size, taps)


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
def test_features_and_a_second_stage_reach_every_parameter(arch: str, size: int) -> None:
    # With the last block's end as the deeper tap 56 % of shufflenet_v2_x0_5 and 42 % of mobilenet_v3_small stayed
    # at their initial values.
    layout = layout_of(arch, size)
    for train in ("head", "last_block"):
        assert leave_untrained(layout, train) == set()


def test_a_named_tap_that_leaves_parameters_out_is_measured() -> None:
    layout = tapped("vgg11", 32, **VGG_TAPS)
    left = leave_untrained(layout, "head")
    assert left == {f"classifier.{n}.{kind}" for n in (0, 3) for kind in ("weight", "bias")}
    assert share(layout, left) == pytest.approx(0.928, abs=0.001)
    assert leave_untrained(layout, "last_block") == set()
    deeper = tapped("vgg11", 32, penultimate="features.10")
    assert deeper.place("last") == "classifier.6:input" and leave_untrained(deeper, "head") == set()


def test_the_last_block_is_what_stands_behind_the_block_before_it() -> None:
    layout = layout_of("resnet20", 16)
    expected = {name for name, _ in layout.model.named_parameters() if name.startswith(("layer3.2", "fc"))}
    parameters, modules = layout.part("last_block")
    assert set(parameters) == expected
    assert {f"layer3.2.{name}" for name in ("conv1", "bn1", "conv2", "bn2")} < set(modules)
    assert not any(module.startswith("layer3.1") for module in modules)
    # taps that are named elsewhere do not move it
    elsewhere = tapped("resnet20", 16, penultimate="layer1.0", last="layer2.0")
    assert elsewhere.part("last_block") == (parameters, modules)


# as models/parts.py found them: tensors that train, modules that hold them, and modules in training mode
@pytest.mark.parametrize(
    ("arch", "size", "head", "last_block", "features"),
    [
        ("resnet8", 16, (2, {"fc"}), (11, {"layer3", "fc"}, 7), {"conv1", "bn1", "layer1", "layer2", "layer3"}),
        (
            "mobilenet_v3_small",
            64,
            (2, {"classifier"}),
            (20, {"features", "classifier"}, 21),
            {"features", "classifier"},
        ),
        ("vit_b_32", 32, (2, {"heads"}), (16, {"encoder", "heads"}, 10), {"class_token", "conv_proj", "encoder"}),
    ],
)
def test_parts_by_architecture(arch: str, size: int, head, last_block, features: set[str]) -> None:
    layout = layout_of(arch, size)
    places = [layout.place("penultimate"), layout.place("last")]
    parts: dict[Part, tuple[list[str], list[str]]] = {
        train: layout.part(train, places) for train in ("features", "head", "last_block", "all")
    }
    found = {
        train: (len(names), {name.partition(".")[0] for name in names}) for train, (names, _) in parts.items()
    }
    everything = len(list(layout.model.parameters()))
    assert found["head"] == head and found["last_block"] == last_block[:2]
    assert found["features"] == (everything - head[0], features)
    assert found["all"] == (everything, features | head[1])
    assert len(parts["head"][1]) == 1 and len(parts["last_block"][1]) == last_block[2]
    assert parts["features"][1] == parts["all"][1] == [""]


def test_layers_between_the_last_block_and_the_head_belong_to_it() -> None:
    names, modules = layout_of("mobilenet_v3_small", 64).part("last_block")
    places = {".".join(name.split(".")[:2]) for name in names}
    assert places == {"features.11", "features.12", "classifier.0", "classifier.3"}
    assert "classifier.2" in modules  # its dropout


def test_features_are_what_the_taps_depend_on() -> None:
    layout = layout_of("resnet8", 16)
    shallow, modules = layout.part("features", ["layer1.0"])
    assert {name.partition(".")[0] for name in shallow} == {"conv1", "bn1", "layer1"} and modules == [""]
    assert layout.part("features", ["layer1.0", "layer2.0"])[0] == layout.part("features", ["layer2.0"])[0]


def test_a_part_is_found_in_every_instance() -> None:
    layout, model = layout_of("resnet8", 16), network("resnet8", 16)
    part = layout.find_part(model, "head")
    head = classifier(model)[1]
    assert part.modules == [head] and [id(one) for one in part.parameters] == [id(head.weight), id(head.bias)]
    everything = layout.find_part(model, "all")
    assert len(everything.parameters) == len(list(model.parameters())) and everything.modules == [model]


def test_a_last_block_of_nothing_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 5), nn.ReLU(), nn.Linear(5, 2))
    layout = infer_layout(copy.deepcopy(model), 4, {"penultimate": "2"})
    with pytest.raises(UserError, match="nothing stands between 2 and the head, use train: head"):
        layout.part("last_block")
    assert len(infer_layout(model, 4, {"penultimate": "0"}).part("last_block")[0]) == 4


@pytest.mark.parametrize(
    ("arch", "size", "stages"),
    [
        ("resnet8", 16, ["layer1", "layer2", "layer3"]),
        ("resnet110", 32, ["layer1", "layer2", "layer3"]),
        ("resnet18", 32, ["layer1", "layer2", "layer3", "layer4"]),
        ("mobilenet_v3_small", 64, ["features.1", "features.3", "features.8", "features"]),
        ("shufflenet_v2_x0_5", 64, ["stage2", "stage3", "conv5"]),
        ("vgg11", 32, [f"features.{number}" for number in (1, 4, 9, 14, 19)]),
        ("vit_b_32", 32, [f"encoder.layers.encoder_layer_{number}" for number in range(12)]),
    ],
)
def test_taps_by_stage_number(arch: str, size: int, stages: list[str]) -> None:
    layout = layout_of(arch, size)
    found = {name: place for name, place in layout.taps.items() if name.startswith("stage")}
    assert found == {f"stage{number}": place for number, place in enumerate(stages, start=1)}
    assert layout.place("stage1") == stages[0]
    with pytest.raises(
        UserError, match=rf"no tap stage{len(stages) + 1}, did you mean 'stage\d+'\?: there are last"
    ):
        layout.place(f"stage{len(stages) + 1}")


def test_each_stage_has_maps_of_its_own_size() -> None:
    layout = layout_of("resnet18", 32)
    shapes = [layout.shape(layout.place(f"stage{number}", as_map=True)) for number in (1, 2, 3, 4)]
    assert shapes == [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]
    assert [layout.shape(layout.place(tap)) for tap in ("stage2", "features")] == [(128,), (512,)]
    first = layout_of("convnext_tiny", 32)  # channels last where it runs, channels first in a map
    assert first.shape(first.place("penultimate", as_map=True)) == (768, 1, 1)
    swin = infer_layout(weightless("swin_t", 64), 64)
    assert swin.shape(swin.place("stage1", as_map=True)) == (96, 16, 16)


def weightless(arch: str, size: int) -> nn.Module:
    with Weightless():
        return build_model(arch, 10, image_size=size).to("meta")


def test_taps_of_the_config_come_before_those_that_are_found() -> None:
    layout = tapped("resnet8", 16, penultimate="layer1", mine="layer2.0.conv1:input")
    assert (layout.place("penultimate"), layout.place("last")) == ("layer1", "fc:input")
    assert layout.shape(layout.place("mine")) == (16,) and layout.shape("layer1:map") == (16, 16, 16)


@pytest.mark.parametrize(
    ("taps", "message"),
    [
        ({"last": "fc"}, r"taps\.last: fc is the classifier, name what it reads: fc:input"),
        ({"mine": "layer1.0.shortcut.none"}, "no module"),
        ({"mine": "layer9"}, "no module of .*, did you mean 'layer"),
    ],
)
def test_taps_of_the_config_that_cannot_be_read_are_refused(taps: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        infer_layout(network("resnet8", 16), 16, taps)


def test_too_small_images_are_refused() -> None:
    with pytest.raises(UserError, match="images of 16 pixels do not go through it"):
        infer_layout(build_model("alexnet", 4), 16)


class Flat(nn.Module):
    """A network of one layer behind another: no blocks, no stages."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(48, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(images.flatten(1))


def test_a_network_without_blocks_asks_for_taps() -> None:
    layout = infer_layout(Flat(), 4)
    assert layout.taps == {"last": "fc:input", "features": "fc:input"}
    with pytest.raises(
        UserError, match=r"Flat has no blocks or stages: name a module with taps: {penultimate: NAME}"
    ):
        layout.place("penultimate")
    with pytest.raises(UserError, match=r"Flat has no tap lst, did you mean 'last'"):
        layout.place("lst")


def test_what_is_asked_twice_is_found_once() -> None:
    layout, runs = tapped("resnet8", 16), []
    layout.model.register_forward_hook(lambda *_: runs.append(1))
    for _ in range(3):
        assert layout.shape("layer1") == (16,) and "fc.bias" in layout.reached([])
    assert len(runs) == 2


def test_asking_leaves_no_trace() -> None:
    model = network("resnet8", 16).train()
    model.fc.requires_grad_(False)
    layout = infer_layout(model, 16)
    flags = [parameter.requires_grad for parameter in model.parameters()]
    assert not all(flags)
    layout.reached(["layer1.0"])
    layout.part("last_block")
    layout.shape("layer1.0:map")
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(parameter.is_meta for parameter in model.parameters())
    assert TappedModel(network("resnet8", 16), ["layer1.0"]).tap_shapes(16) == [layout.shape("layer1.0")]
