"""Weights that torchvision or timm publish: which there are, and the images and classes they were made for."""

from __future__ import annotations

from dataclasses import dataclass

import torchvision.models
from torchvision.models import WeightsEnum, get_model_weights, list_models

from errors import UserError, nearest
from models.foreign import TIMM, timm_name, timm_package
from models.networks import SMALL_NETWORKS
from settings.own_code import is_own


@dataclass(frozen=True)
class Published:
    """What published weights were made for."""

    classes: int
    size: int  # pixels a side
    mean: tuple[float, ...]
    std: tuple[float, ...]


def published(arch: str, weights: str) -> Published:
    """What the weights of that name were made for, nothing downloaded.

    Raises:
        UserError: weights that are not published for `arch`.
    """
    theirs = list_models(module=torchvision.models)
    if (arch in SMALL_NETWORKS and arch not in theirs) or is_own(arch):
        raise UserError(f"weights {weights}: {arch} has no published weights, remove the key")
    if arch.startswith(TIMM):
        return _of_timm(arch, weights)
    entry = _entry(arch, weights)
    seen = entry.transforms()
    return Published(len(entry.meta["categories"]), seen.crop_size[0], tuple(seen.mean), tuple(seen.std))


def _entry(arch: str, weights: str) -> WeightsEnum:
    try:
        known = get_model_weights(arch)
    except ValueError:
        raise UserError(unknown(arch)) from None
    name = weights.rpartition(".")[2]
    if name not in known.__members__:
        raise UserError(f"weights {weights}: {arch} has {', '.join(known.__members__)}")
    return known[name]


def unknown(arch: str) -> str:
    """What to say of a name that is no network's."""
    known = [*SMALL_NETWORKS, *list_models(module=torchvision.models)]
    return f"unknown arch {arch!r}{nearest(arch, known)} (timm/NAME and package.module:callable are taken too)"


def _of_timm(arch: str, weights: str) -> Published:
    timm = timm_package(arch)
    name = timm_name(arch)
    if weights != "DEFAULT":
        named = f"{TIMM}{name.partition('.')[0]}.{weights}"
        raise UserError(f"weights {weights}: timm names weights in arch: use arch: {named} with weights: DEFAULT")
    config = timm.models.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise UserError(f"weights {weights}: timm has none for {name}, remove the key")
    return Published(config.num_classes, config.input_size[-1], tuple(config.mean), tuple(config.std))
