"""Networks by name: CIFAR resnets, torchvision's, and what is refused."""

from __future__ import annotations

import urllib.error

import pytest
import torch
import torchvision
from torch import nn

from errors import UserError
from models.heads import classifier
from models.networks.resnet import CifarResNet
from models.zoo import build_model, count_parameters


@pytest.mark.parametrize(
    ("arch", "num_classes", "expected"),
    [
        ("resnet8", 10, 78_042),
        ("resnet20", 10, 272_474),
        ("resnet8", 100, 83_892),
        ("resnet20", 100, 278_324),
        ("resnet110", 100, 1_736_564),
        ("resnet8x4", 100, 1_233_540),
        ("resnet32x4", 100, 7_433_860),
    ],
)
def test_parameters_of_the_cifar_family(arch: str, num_classes: int, expected: int) -> None:
    model = build_model(arch, num_classes)
    assert count_parameters(model) == expected
    assert model.eval()(torch.zeros(2, 3, 16, 16)).shape == (2, num_classes)


@pytest.mark.parametrize("depth", [8, 14, 20, 32, 44, 56, 110])
def test_depth_counts_the_convolutions_and_the_head(depth: int) -> None:
    model = build_model(f"resnet{depth}", 10)
    on_the_path = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(on_the_path) + 1 == depth


@pytest.mark.parametrize("depth", [2, 9, 21])
def test_a_depth_that_is_not_6n_plus_2_is_refused(depth: int) -> None:
    with pytest.raises(ValueError, match="6n \\+ 2"):
        CifarResNet(depth, (16, 16, 32, 64), 10)


def test_stems_of_torchvisions_resnets() -> None:
    # torchvision's 11,689,512 without its 1000-class head and 7x7 stem, with ours
    body = 11_689_512 - (512 + 1) * 1000 - 64 * 3 * 49
    cifar, imagenet = build_model("resnet18", 100), build_model("resnet18", 100, stem="imagenet")
    assert count_parameters(cifar) == body + 513 * 100 + 64 * 3 * 9
    assert count_parameters(imagenet) == body + 513 * 100 + 64 * 3 * 49
    maps = []
    for model in (cifar, imagenet):
        model.layer4.register_forward_hook(lambda _, __, out: maps.append(out.shape[2:]))
        assert model.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 100)
    assert maps == [(4, 4), (1, 1)]


@pytest.mark.parametrize(
    ("arch", "head"), [("resnet8", "fc"), ("resnet18", "fc"), ("mobilenet_v3_small", "classifier.3")]
)
def test_the_classifier_is_the_new_last_layer(arch: str, head: str) -> None:
    model = build_model(arch, 7)
    name, layer = classifier(model)
    assert (name, layer.out_features) == (head, 7)
    assert layer is model.get_submodule(head)


@pytest.mark.parametrize(
    ("arch", "options", "message"),
    [
        ("resnet_20", {}, "unknown arch 'resnet_20', did you mean 'resnet20'"),
        ("mobilenet_v3_smal", {}, "did you mean 'mobilenet_v3_small'"),
        ("fcn_resnet50", {}, "unknown arch"),  # torchvision's, but no classifier
        ("resnet8", {"weights": "DEFAULT"}, "no published weights"),
        ("resnet18", {"weights": "NOPE"}, "NOPE"),
        ("vit_b_16", {"image_size": 30}, "image_size 30: .*indivisible by patch size"),
        ("maxvit_t", {"image_size": 32}, "maxvit_t with weights None at image_size 32"),
        ("resnet8", {"options": {"width": 3}}, "arch_options: resnet8 takes none"),
        ("resnet18", {"options": {"num_classes": 3}}, "num_classes follows from the data"),
    ],
)
def test_what_cannot_be_built_is_named(arch: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_model(arch, 10, **options)


def test_weights_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(UserError, match="DEFAULT.*could not be downloaded.*no route to host.*local file"):
        build_model("resnet18", 10, weights="DEFAULT")


def test_a_head_of_the_right_size_is_kept():
    torch.manual_seed(0)
    wanted = torchvision.models.resnet18(weights=None)
    torch.manual_seed(0)
    kept = build_model("resnet18", 1000, stem="imagenet")
    assert torch.equal(kept.fc.weight, wanted.fc.weight)  # as it must be for pretrained weights to mean anything
    assert build_model("resnet18", 7, stem="imagenet").fc.out_features == 7
