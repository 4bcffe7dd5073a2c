from __future__ import annotations

from functools import cache

import pytest
from torch import nn

from errors import UserError
from models.heads import find_classifier
from models.layout import Layout, infer_layout
from models.taps import TappedModel
from models.zoo import Weightless, build_model
from settings.stages import Part
from tests.models.table import choose_stem, compute_share, find_untrained


def build_layout(arch: str, size: int, **taps: str) -> Layout:
    """Infer a layout on the meta device: no values are needed, and drawing them would take most of the time."""
    with Weightless():
        model = build_model(arch, 10, stem=choose_stem(arch), image_size=size)
    return infer_layout(model.to("meta"), size, taps)


@cache
def get_layout(arch: str, size: int) -> Layout:
    return build_layout(arch, size)


@pytest.mark.parametrize(
    ("arch", "size", "taps", "stages"),
    [
        ("resnet8", 16, ["layer2.0", "fc:input"], ["layer1", "layer2", "layer3"]),
        ("resnet20", 16, ["layer3.1", "fc:input"], ["layer1", "layer2", "layer3"]),
        ("resnet18", 32, ["layer4.0", "fc:input"], ["layer1", "layer2", "layer3", "layer4"]),
        (
            "mobilenet_v3_small",
            64,
            ["features.10", "classifier.3:input"],
            ["features.1", "features.3", "features.8", "features"],
        ),
        ("shufflenet_v2_x0_5", 64, ["stage4.2", "fc:input"], ["stage2", "stage3", "conv5"]),
        ("vgg11", 32, ["features", "classifier.6:input"], [f"features.{number}" for number in (1, 4, 9, 14, 19)]),
        (
            "vit_b_32",
            32,
            ["encoder.layers.encoder_layer_10", "heads.head:input"],
            [f"encoder.layers.encoder_layer_{number}" for number in range(12)],
        ),
        ("swin_t", 64, ["features.7.0", "head:input"], None),
        ("swin_v2_t", 64, ["features.7.0", "head:input"], None),
        ("maxvit_t", 224, ["blocks.2", "classifier.5:input"], None),
        ("googlenet", 64, ["inception5a", "fc:input"], None),
        ("inception_v3", 96, ["Mixed_7b", "fc:input"], None),
        ("densenet121", 64, ["features.transition3", "classifier:input"], None),
        ("regnet_x_400mf", 64, ["trunk_output.block4.block4-10", "fc:input"], None),
        ("convnext_tiny", 64, ["features.7.1", "classifier.2:input"], None),
        ("efficientnet_b0", 64, ["features.6.3", "classifier.1:input"], None),
    ],
)
def test_taps_of_each_family(arch: str, size: int, taps: list[str], stages: list[str] | None) -> None:
    layout = get_layout(arch, size)
    assert [layout.find_place("penultimate"), layout.find_place("last")] == taps
    if stages is not None:
        assert layout.structure.stages == stages
    for number, place in enumerate(layout.structure.stages, start=1):
        assert layout.find_place(f"stage{number}") == place


@pytest.mark.parametrize(
    ("arch", "size"),
    [
        ("resnet8", 16),
        ("resnet18", 32),
        ("shufflenet_v2_x0_5", 64),
        ("mobilenet_v3_small", 64),
        ("efficientnet_b0", 64),
        ("convnext_tiny", 64),
        ("vit_b_32", 32),
    ],
)
def test_features_and_a_second_stage_reach_every_parameter(arch: str, size: int) -> None:
    # With the last block's end as the deeper tap 56 % of shufflenet_v2_x0_5 and 42 % of mobilenet_v3_small stayed
    # at their initial values.
    layout = get_layout(arch, size)
    for train in ("head", "last_block"):
        assert find_untrained(layout, train) == set()


def test_parameters_that_no_named_tap_reaches_are_found() -> None:
    layout = build_layout("vgg11", 32, penultimate="features.10", last="features.20")
    left = find_untrained(layout, "head")
    assert left == {f"classifier.{n}.{kind}" for n in (0, 3) for kind in ("weight", "bias")}
    assert compute_share(layout, left) == pytest.approx(0.928, abs=0.001)
    assert find_untrained(layout, "last_block") == set()
    assert find_untrained(build_layout("vgg11", 32, penultimate="features.10"), "head") == set()


def test_last_block_is_everything_behind_the_block_before() -> None:
    layout = get_layout("resnet20", 16)
    expected = {name for name, _ in layout.model.named_parameters() if name.startswith(("layer3.2", "fc"))}
    parameters, modules = layout.find_part_names("last_block")
    assert set(parameters) == expected
    assert {f"layer3.2.{name}" for name in ("conv1", "bn1", "conv2", "bn2")} < set(modules)
    assert not any(module.startswith("layer3.1") for module in modules)
    # taps named elsewhere do not move it
    elsewhere = build_layout("resnet20", 16, penultimate="layer1.0", last="layer2.0")
    assert elsewhere.find_part_names("last_block") == (parameters, modules)


# tensors that train and the modules that hold them; for the last block modules in training mode too
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
def test_parts_of_each_family(arch: str, size: int, head, last_block, features: set[str]) -> None:
    layout = get_layout(arch, size)
    places = [layout.find_place("penultimate"), layout.find_place("last")]
    modes: tuple[Part, ...] = ("features", "head", "last_block", "all")
    parts = {train: layout.find_part_names(train, places) for train in modes}
    found = {
        train: (len(names), {name.partition(".")[0] for name in names}) for train, (names, _) in parts.items()
    }
    everything = len(list(layout.model.parameters()))
    assert found["head"] == head and found["last_block"] == last_block[:2]
    assert found["features"] == (everything - head[0], features)
    assert found["all"] == (everything, features | head[1])
    assert len(parts["head"][1]) == 1 and len(parts["last_block"][1]) == last_block[2]
    assert parts["features"][1] == parts["all"][1] == [""]


def test_layers_before_the_head_belong_to_last_block() -> None:
    names, modules = get_layout("mobilenet_v3_small", 64).find_part_names("last_block")
    places = {".".join(name.split(".")[:2]) for name in names}
    assert places == {"features.11", "features.12", "classifier.0", "classifier.3"}
    assert "classifier.2" in modules  # its dropout


def test_features_are_what_the_taps_depend_on() -> None:
    layout = get_layout("resnet8", 16)
    shallow, modules = layout.find_part_names("features", ["layer1.0"])
    assert {name.partition(".")[0] for name in shallow} == {"conv1", "bn1", "layer1"} and modules == [""]
    both = layout.find_part_names("features", ["layer1.0", "layer2.0"])
    assert both == layout.find_part_names("features", ["layer2.0"])


def test_a_part_is_found_in_every_instance() -> None:
    layout, model = get_layout("resnet8", 16), build_model("resnet8", 10)
    part = layout.find_part(model, "head")
    head = find_classifier(model)[1]
    assert part.modules == [head] and [id(one) for one in part.parameters] == [id(head.weight), id(head.bias)]
    everything = layout.find_part(model, "all")
    assert len(everything.parameters) == len(list(model.parameters())) and everything.modules == [model]


def test_an_empty_last_block_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 5), nn.ReLU(), nn.Linear(5, 2))
    layout = infer_layout(model, 4, {"penultimate": "2"})
    with pytest.raises(UserError, match="nothing stands between 2 and the head, use train: head"):
        layout.find_part_names("last_block")
    assert len(infer_layout(model, 4, {"penultimate": "0"}).find_part_names("last_block")[0]) == 4


def test_each_stage_has_maps_of_its_own_size() -> None:
    layout = get_layout("resnet18", 32)
    shapes = [layout.find_shape(layout.find_place(f"stage{number}", as_map=True)) for number in (1, 2, 3, 4)]
    assert shapes == [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]
    assert [layout.find_shape(layout.find_place(tap)) for tap in ("stage2", "features")] == [(128,), (512,)]
    swin = get_layout("swin_t", 64)  # channels last where it runs, channels first in a map
    assert swin.find_shape(swin.find_place("stage1", as_map=True)) == (96, 16, 16)


def test_taps_of_the_config_override_found_ones() -> None:
    layout = build_layout("resnet8", 16, penultimate="layer1", mine="layer2.0.conv1:input")
    assert (layout.find_place("penultimate"), layout.find_place("last")) == ("layer1", "fc:input")
    assert layout.find_shape(layout.find_place("mine")) == (16,)
    assert layout.find_shape("layer1:map") == (16, 16, 16)


def test_too_small_images_are_refused() -> None:
    with pytest.raises(UserError, match="images of 16 pixels do not go through it"):
        infer_layout(build_model("alexnet", 4), 16)


def test_questions_leave_the_network_unchanged() -> None:
    model = build_model("resnet8", 10).train()
    model.fc.requires_grad_(False)
    layout = infer_layout(model, 16)
    flags = [parameter.requires_grad for parameter in model.parameters()]
    assert not all(flags)
    layout.find_reached(["layer1.0"])
    layout.find_part_names("last_block")
    layout.find_shape("layer1.0:map")
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(parameter.is_meta for parameter in model.parameters())
    assert TappedModel(build_model("resnet8", 10), ["layer1.0"]).find_tap_shapes(16) == [(16,)]
