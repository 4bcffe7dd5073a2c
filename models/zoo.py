"""Networks by name, their published weights, and the image sizes they accept."""

from __future__ import annotations

import urllib.error
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torchvision.models
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchvision.models import get_model, get_model_weights, list_models

from errors import UserError, suggest_nearest, warn
from models.foreign import TIMM, build_own_model, build_timm_model, extract_logits, import_timm
from models.heads import count_outputs, find_classifier, name_classifier, replace_classifier
from models.networks import SMALL_NETWORKS
from models.networks.resnet import torchvision_resnet
from models.structure import describe_error, find_last_layer, forward_black_images
from settings.own_code import is_own

STEMMED = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")  # torchvision's that `stem` applies to
SIZED = {"vit_": "image_size", "maxvit_": "input_size"}  # torchvision's that take the side of their input
AUXILIARY = ("googlenet", "inception_v3")  # torchvision's with auxiliary classifiers, which are left out
RESERVED = {"num_classes", "image_size", "img_size", "pretrained", "weights"}  # options decided elsewhere
NO_OPTIONS: Mapping[str, Any] = {}
STEP, LARGEST = 32, 640  # pixels a side: multiples of STEP are tried first, up to LARGEST

Build = Callable[[int], nn.Module]  # makes a network for images of that many pixels a side


class Weightless(TorchFunctionMode):
    """Context in which new layers have weights on the meta device, without values."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func is torch.empty and given.get("device") is None:
            given = {**given, "device": "meta"}
        return func(*args, **given)


@dataclass(frozen=True)
class PublishedWeights:
    """Classes and images that published weights were trained on."""

    classes: int
    size: int  # pixels a side
    mean: tuple[float, ...]
    std: tuple[float, ...]


def build_model(
    arch: str,
    num_classes: int,
    *,
    stem: str = "cifar",
    weights: str | None = None,
    image_size: int = 32,
    options: Mapping[str, Any] = NO_OPTIONS,
) -> nn.Module:
    """Build a classifier from (B, 3, image_size, image_size) to (B, num_classes).

    Args:
        arch: a network of `models/networks`, a torchvision classifier, timm/NAME, or package.module:callable.
        num_classes: outputs; the classifier of a torchvision model is replaced where it has another number.
        stem: "cifar" or "imagenet", for torchvision's resnets and vgg11 to vgg19, which have a form for small
            images each.
        weights: published weights by name such as "DEFAULT", or None for random weights.
        image_size: side of the input, which vision transformers must know.
        options: further arguments of the network's class or function.

    Raises:
        UserError: an unknown name, weights that do not exist or cannot be downloaded, a network that is none.
    """
    if weights is not None:
        find_published(arch, weights)
    theirs = arch in list_models(module=torchvision.models)
    if arch in SMALL_NETWORKS and (not theirs or (stem == "cifar" and weights is None)):
        if options:
            hint = "use stem: imagenet for torchvision's, which does" if theirs else "remove the key"
            raise UserError(f"arch_options: {arch} takes none, {hint}")
        return SMALL_NETWORKS[arch](num_classes)
    reserved = sorted(RESERVED & set(options))
    if reserved:
        raise UserError(
            f"arch_options of {arch}: {reserved[0]} follows from the data and other keys, leave it out"
        )
    if arch.startswith(TIMM):
        model = build_timm_model(arch, num_classes, weights is not None, image_size, options)
        return _check_foreign(model, arch, num_classes, image_size)
    if is_own(arch):
        model = build_own_model(arch, num_classes, image_size, options)
        return _check_foreign(model, arch, num_classes, image_size)
    if not theirs:
        raise UserError(_describe_unknown_arch(arch))
    model = _build_torchvision_model(arch, stem, weights, image_size, options)
    replace_classifier(model, num_classes)
    return model


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters, trainable or not."""
    return sum(parameter.numel() for parameter in model.parameters())


def _check_foreign(model: nn.Module, arch: str, num_classes: int, image_size: int) -> nn.Module:
    """Check that a network gives logits (B, num_classes), and find its classifier.

    Raises:
        UserError: it gives something else.
    """
    extract_logits(model)
    try:
        given = forward_black_images(model, 2, image_size)[1]
    except Exception as error:  # a user's code may raise anything
        raise UserError(
            f"arch {arch}: images of {image_size} pixels do not go through it: {describe_error(error)} (a large "
            "network is followed on torch's meta device: its tensors must be parameters or buffers)"
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
    if last is not None:
        name_classifier(model, last)
    name, head = find_classifier(model)
    if count_outputs(head) != num_classes:
        raise UserError(
            f"arch {arch}: its last layer {name} gives {count_outputs(head)} numbers, "
            f"not a logit for each of {num_classes} classes: end in a linear layer or a convolution"
        )
    return model


def _build_torchvision_model(
    arch: str, stem: str, weights: str | None, image_size: int, options: Mapping[str, Any]
) -> nn.Module:
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
        _warn_of_unused_options(arch, given, options, model)
    return extract_logits(model) if arch in AUXILIARY else model


def _warn_of_unused_options(
    arch: str, given: Mapping[str, Any], options: Mapping[str, Any], model: nn.Module
) -> None:
    """Warn of unused options: some of torchvision's networks ignore unknown names."""
    for name in options:
        rest = {key: value for key, value in given.items() if key != name}
        with Weightless():
            without = get_model(arch, weights=None, **rest)
        if repr(without) == repr(model):
            warn(f"arch_options: {name}={options[name]!r} changes nothing of {arch}: is the name right?")


def find_published(arch: str, weights: str) -> PublishedWeights:
    """Look up published weights by name, without a download.

    Raises:
        UserError: weights that are not published for `arch`.
    """
    theirs = list_models(module=torchvision.models)
    if (arch in SMALL_NETWORKS and arch not in theirs) or is_own(arch):
        raise UserError(f"weights {weights}: {arch} has no published weights, remove the key")
    if arch.startswith(TIMM):
        return _find_timm_weights(arch, weights)
    try:
        known = get_model_weights(arch)
    except ValueError:
        raise UserError(_describe_unknown_arch(arch)) from None
    entry = known.__members__.get(weights.rpartition(".")[2])
    if entry is None:
        raise UserError(f"weights {weights}: {arch} has {', '.join(known.__members__)}")
    images = entry.transforms()
    classes = len(entry.meta["categories"])
    return PublishedWeights(classes, images.crop_size[0], tuple(images.mean), tuple(images.std))


def _find_timm_weights(arch: str, weights: str) -> PublishedWeights:
    timm, name = import_timm(arch)
    if weights != "DEFAULT":
        named = f"{TIMM}{name.partition('.')[0]}.{weights}"
        raise UserError(f"weights {weights}: timm names weights in arch: use arch: {named} with weights: DEFAULT")
    config = timm.models.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise UserError(f"weights {weights}: timm has none for {name}, remove the key")
    return PublishedWeights(config.num_classes, config.input_size[-1], tuple(config.mean), tuple(config.std))


def _describe_unknown_arch(arch: str) -> str:
    known = [*SMALL_NETWORKS, *list_models(module=torchvision.models)]
    nearest = suggest_nearest(arch, known)
    return f"unknown arch {arch!r}{nearest} (timm/NAME and package.module:callable are taken too)"


def build_for(build: Build, image_size: int) -> nn.Module:
    """Build a network and check that it accepts images of `image_size` pixels a side.

    Raises:
        UserError: it does not, or cannot be built; the message names the smallest size that works, if any does.
    """
    try:
        model = build(image_size)
        _check_forward(model, image_size)
    except UserError as error:
        found = find_smallest_size(build, image_size)
        hint = f": the smallest image_size that works is {found}" if found else ""
        raise UserError(f"{error}{hint}") from error
    return model


def find_smallest_size(build: Build, above: int) -> int | None:
    """Return the smallest side above `above` that a network accepts.

    None means that none up to `LARGEST` works. Sizes between two multiples of `STEP` are bisected, so the answer
    may be too large where they work in no order.
    """

    def has_forward(image_size: int) -> bool:
        try:
            with Weightless():
                model = build(image_size)
            _check_forward(model.to("meta"), image_size)
        except UserError:
            return False
        return True

    high = next((size for size in range((above // STEP + 1) * STEP, LARGEST + 1, STEP) if has_forward(size)), None)
    if high is None:
        return None
    low = max(above, high - STEP) + 1
    return low + bisect_left(range(low, high), True, key=has_forward)


def _check_forward(model: nn.Module, image_size: int) -> None:
    try:
        forward_black_images(model, 1, image_size)
    except Exception as error:  # a user's network may raise anything
        message = f"images of {image_size} x {image_size} pixels do not go through it ({describe_error(error)})"
        raise UserError(message) from error
