from __future__ import annotations

import urllib.error

import pytest
import torch
import torchvision.models
from torch import nn
from torchvision.models import list_models

from errors import UserError
from models.heads import find_classifier
from models.networks.resnet import CifarResNet
from models.zoo import build_for, build_model, count_parameters, find_published, find_smallest_size


@pytest.mark.parametrize("depth", [2, 9, 21])
def test_wrong_depth_is_refused(depth: int) -> None:
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
def test_classifier_has_the_wanted_outputs(arch: str, head: str) -> None:
    model = build_model(arch, 7)
    name, layer = find_classifier(model)
    assert (name, layer.out_features) == (head, 7)
    assert layer is model.get_submodule(head)


def test_head_of_the_right_size_is_kept() -> None:
    torch.manual_seed(0)
    wanted = torchvision.models.resnet18(weights=None)
    torch.manual_seed(0)
    kept = build_model("resnet18", 1000, stem="imagenet")
    assert torch.equal(kept.fc.weight, wanted.fc.weight)  # published weights need their own head


def test_auxiliary_outputs_are_left_out_in_training_too() -> None:
    model = build_model("googlenet", 5).train()
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 5)
    assert not [name for name, _ in model.named_parameters() if name.startswith("aux")]


def test_eighty_classifiers_are_known() -> None:
    assert len(list_models(module=torchvision.models)) == 80


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


def test_published_weights_without_a_network_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_offline(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", raise_offline)
    with pytest.raises(UserError, match=r"DEFAULT.*could not be downloaded.*no route to host.*local file"):
        build_model("resnet18", 10, weights="DEFAULT")


def test_published_weights_have_classes_size_and_normalisation() -> None:
    found = find_published("resnet18", "DEFAULT")
    assert (found.classes, found.size) == (1000, 224)
    assert found.mean == (0.485, 0.456, 0.406) and found.std == (0.229, 0.224, 0.225)
    assert find_published("vit_b_16", "IMAGENET1K_SWAG_E2E_V1").size == 384


@pytest.mark.parametrize(("arch", "smallest"), [("alexnet", 63), ("vit_b_32", 32), ("resnet8", 1)])
def test_smallest_image_size_is_named(arch: str, smallest: int) -> None:
    def build(size: int) -> nn.Module:
        return build_model(arch, 4, image_size=size)

    assert find_smallest_size(build, 0) == smallest
    if smallest > 1:
        with pytest.raises(UserError, match=f"the smallest image_size that works is {smallest}$"):
            build_for(build, smallest - 2)
    assert isinstance(build_for(build, smallest), nn.Module)


def test_no_size_is_named_where_none_helps() -> None:
    with pytest.raises(UserError, match=r"unknown arch 'nope'[^:]*:callable are taken too\)$"):
        build_for(lambda size: build_model("nope", 4), 32)
