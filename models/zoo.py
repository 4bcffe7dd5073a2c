"""Networks by name: `build_model` makes one, ready to be read at its taps and trained by parts."""

from __future__ import annotations

import urllib.error
from collections.abc import Mapping
from typing import Any

import torchvision.models
from torch import Tensor, nn
from torchvision.models import get_model, list_models

from errors import UserError, warn
from models.foreign import TIMM, logits_alone, own_model, refuse_taken, timm_model
from models.heads import classifier, name_classifier, outputs_of, replace_classifier
from models.networks import SMALL_NETWORKS
from models.networks.resnet import torchvision_resnet
from models.published import published, unknown
from models.sizes import Weightless
from models.structure import find_last_layer, reason, send
from settings.own_code import is_own

STEMMED = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")  # those that `stem` applies to
SIZED = {"vit_": "image_size", "maxvit_": "input_size"}  # torchvision's that must know the side of their input
AUXILIARY = (
    "googlenet",
    "inception_v3",
)  # torchvision's with auxiliary classifiers, which nothing here trains
NO_OPTIONS: Mapping[str, Any] = {}


def build_model(
    arch: str,
    num_classes: int,
    *,
    stem: str = "cifar",
    weights: str | None = None,
    image_size: int = 32,
    options: Mapping[str, Any] = NO_OPTIONS,
) -> nn.Module:
    """Make a classifier whose input is (B, 3, image_size, image_size) and whose output is (B, num_classes).

    Args:
        arch: a network of `models/networks`, any torchvision classifier's name, timm/NAME, or
            package.module:callable.
        num_classes: outputs; the classifier of a torchvision model is replaced where it has another number.
        stem: "cifar" or "imagenet", for torchvision's resnets and vgg11 to vgg19, which have a form for small
            images each.
        weights: published weights by name such as "DEFAULT", or None for random weights.
        image_size: side of the input, handed to models that must know it (vision transformers).
        options: further arguments of the network's class or function.

    Raises:
        UserError: an unknown name, weights that do not exist or cannot be downloaded, a network that is none.
    """
    if weights is not None:
        published(arch, weights)
    if is_small(arch, stem, weights):
        if options:
            theirs = arch in list_models(module=torchvision.models)
            hint = "use stem: imagenet for torchvision's, which does" if theirs else "remove the key"
            raise UserError(f"arch_options: {arch} takes none, {hint}")
        return SMALL_NETWORKS[arch](num_classes)
    if arch.startswith(TIMM):
        model = timm_model(arch, num_classes, weights is not None, image_size, options)
        return _foreign(model, arch, num_classes, image_size)
    if is_own(arch):
        model = own_model(arch, num_classes, image_size, options)
        return _foreign(model, arch, num_classes, image_size)
    if arch not in list_models(module=torchvision.models):
        raise UserError(unknown(arch))
    model = _torchvision_model(arch, stem, weights, image_size, options)
    replace_classifier(model, num_classes)
    return model


def is_small(arch: str, stem: str, weights: str | None) -> bool:
    """Return whether a name means a network of `models/networks`, not torchvision's of the same name."""
    ambiguous = arch in list_models(module=torchvision.models)
    return arch in SMALL_NETWORKS and (not ambiguous or (stem == "cifar" and weights is None))


def count_parameters(model: nn.Module) -> int:
    """Number of parameters, trainable or not."""
    return sum(parameter.numel() for parameter in model.parameters())


def _foreign(model: nn.Module, arch: str, num_classes: int, image_size: int) -> nn.Module:
    """A network from elsewhere that gives logits (B, num_classes), its classifier known.

    Raises:
        UserError: it gives something else.
    """
    logits_alone(model)
    try:
        given = send(model, 2, image_size)[1]
    except Exception as error:  # code of one's own may raise anything
        raise UserError(
            f"arch {arch}: images of {image_size} pixels do not go through it: {reason(error)} (a large network "
            "is followed on torch's meta device: its tensors must be parameters or buffers)"
        ) from error
    if not isinstance(given, Tensor):
        raise UserError(
            f"arch {arch} gives a {type(given).__name__}: give the logits (B, classes), or an object with .logits"
        )
    if given.shape != (2, num_classes):
        raise UserError(
            f"arch {arch} gives {tuple(given.shape)} for 2 images where (2, {num_classes}) is wanted, one logit a "
            "class: take num_classes as an argument, or set the number with arch_options"
        )
    last = find_last_layer(model, image_size)
    if last is not None and last != classifier(model)[0]:
        name_classifier(model, last)
    name, head = classifier(model)
    if outputs_of(head) != num_classes:
        raise UserError(
            f"arch {arch}: its last layer {name} gives {outputs_of(head)} numbers, "
            f"not a logit for each of {num_classes} classes: end in a linear layer or a convolution"
        )
    return model


def _torchvision_model(
    arch: str, stem: str, weights: str | None, image_size: int, options: Mapping[str, Any]
) -> nn.Module:
    refuse_taken(arch, options)
    given = dict(options)
    for prefix, name in SIZED.items():
        if arch.startswith(prefix):
            given[name] = image_size if name == "image_size" else (image_size, image_size)
    if arch in AUXILIARY and weights is None:
        given = {"aux_logits": False, "init_weights": True} | given
    model: nn.Module
    try:
        if arch in STEMMED:
            model = torchvision_resnet(arch, weights, stem, given)
        else:
            model = get_model(arch, weights=weights, **given)
    except (urllib.error.URLError, OSError) as error:
        raise UserError(
            f"weights {weights!r} of {arch} could not be downloaded ({error}); give a local file as checkpoint"
        ) from None
    except TypeError as error:
        raise UserError(f"arch_options of {arch}: {error}") from None
    except (ValueError, KeyError, AssertionError) as error:
        raise UserError(f"{arch} with weights {weights!r} at image_size {image_size}: {error}") from None
    if arch not in STEMMED:
        _warn_of_idle(arch, given, options, model)
    return logits_alone(model) if arch in AUXILIARY else model


def _warn_of_idle(arch: str, given: Mapping[str, Any], options: Mapping[str, Any], model: nn.Module) -> None:
    """Some of torchvision's networks take any name and leave what they do not know alone."""
    for name in options:
        rest = {key: value for key, value in given.items() if key != name}
        with Weightless():
            without = get_model(arch, weights=None, **rest)
        if repr(without) == repr(model):
            warn(f"arch_options: {name}={options[name]!r} changes nothing of {arch}: is the name right?")
