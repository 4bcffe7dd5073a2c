"""Networks by name: `build_model` makes one, `classifier` finds its last linear layer."""

from __future__ import annotations

import urllib.error

import torchvision.models
from torch import nn
from torchvision.models import WeightsEnum, get_model, get_model_weights, list_models

from errors import UserError, nearest
from models.resnet import CIFAR_RESNETS, CifarResNet, torchvision_resnet

STEMMED = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")  # those that `stem` applies to


def build_model(
    arch: str, num_classes: int, *, stem: str = "cifar", weights: str | None = None, image_size: int = 32
) -> nn.Module:
    """Make a classifier whose input is (B, 3, image_size, image_size) and whose output is (B, num_classes).

    Args:
        arch: a CIFAR resnet of `models/resnet.py` or any torchvision classifier's name.
        num_classes: outputs; the last linear layer of a torchvision model is replaced where it has another number.
        stem: "cifar" or "imagenet", for torchvision's resnets only.
        weights: torchvision weight name such as "DEFAULT", or None for random weights.
        image_size: side of the input, handed to models that must know it (vision transformers).

    Raises:
        UserError: an unknown name, weights that do not exist or cannot be downloaded.
    """
    if weights is not None:
        find_weights(arch, weights)
    if arch in CIFAR_RESNETS:
        depth, channels = CIFAR_RESNETS[arch]
        return CifarResNet(depth, channels, num_classes)
    if arch not in list_models(module=torchvision.models):
        raise UserError(_unknown(arch))
    try:
        model = _torchvision_model(arch, stem, weights, image_size)
    except (ValueError, KeyError, AssertionError) as error:
        raise UserError(f"{arch} with weights {weights!r} at image_size {image_size}: {error}") from None
    except (urllib.error.URLError, OSError) as error:
        raise UserError(
            f"weights {weights!r} of {arch} could not be downloaded ({error}); give a local file as checkpoint"
        ) from None
    head_name, head = classifier(model)
    if head.out_features != num_classes:
        parent = model.get_submodule(head_name.rpartition(".")[0])
        setattr(parent, head_name.rpartition(".")[2], nn.Linear(head.in_features, num_classes))
    return model


def find_weights(arch: str, weights: str) -> WeightsEnum:
    """torchvision's entry for pretrained weights, nothing downloaded; `weights` such as "DEFAULT".

    Raises:
        UserError: weights that are not published for `arch`.
    """
    if arch in CIFAR_RESNETS:
        raise UserError(f"weights {weights}: {arch} has no published weights, remove the key")
    try:
        published = get_model_weights(arch)
    except ValueError:
        raise UserError(_unknown(arch)) from None
    name = weights.rpartition(".")[2]
    if name not in published.__members__:
        raise UserError(f"weights {weights}: {arch} has {', '.join(published.__members__)}")
    return published[name]


def classifier(model: nn.Module) -> tuple[str, nn.Linear]:
    """The last linear layer of a network and its dotted name: what stage 2 calls the head.

    Raises:
        UserError: the network has no linear layer.
    """
    linear = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise UserError(f"{type(model).__name__} ends in no linear layer, choose another arch")
    return linear[-1]


def count_parameters(model: nn.Module) -> int:
    """Number of parameters, trainable or not."""
    return sum(parameter.numel() for parameter in model.parameters())


def _unknown(arch: str) -> str:
    return f"unknown arch {arch!r}{nearest(arch, [*CIFAR_RESNETS, *list_models(module=torchvision.models)])}"


def _torchvision_model(arch: str, stem: str, weights: str | None, image_size: int) -> nn.Module:
    if arch in ("googlenet", "inception_v3"):
        raise ValueError("it returns auxiliary outputs in training, which no objective here uses")
    if arch.startswith("swin"):
        raise ValueError("its maps are channels-last, which taps do not read")
    model: nn.Module
    if arch in STEMMED:
        model = torchvision_resnet(arch, weights, stem)
    elif arch.startswith("vit_"):
        model = get_model(arch, weights=weights, image_size=image_size)
    else:
        model = get_model(arch, weights=weights)
    return model
