"""Taps: places in a network whose features are read beside the logits.

A place is a module's name and means its output, as it is before a later layer changes it in place; with `:input`
behind the name it means the module's input. Features are pooled to (B, C); with `:map` at the end they are maps
(B, C, H, W).

Letters: B batch, C channels, H x W map, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from errors import UserError, suggest_nearest
from models.heads import find_classifier
from models.machine import Machine

INPUT, MAP = ":input", ":map"


class Outputs(NamedTuple):
    """Output of a network for a batch."""

    logits: Tensor  # (B, classes)
    taps: tuple[Tensor, ...]  # one per place: (B, C), or (B, C, H, W) for a map


class TappedModel(nn.Module):
    """A network returning logits and taps in one pass, with the weights of `model`.

    Raises:
        UserError: a tap that names no module of the network.
    """

    def __init__(self, model: nn.Module, taps: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.taps = tuple(taps)
        for tap in self.taps:
            find_module(model, tap)
        self.train(model.training)

    def forward(self, images: Tensor) -> Outputs:  # (B, 3, H, W)
        """Return logits and taps.

        Raises:
            UserError: a tap whose module does not run, or whose tensor cannot be pooled.
        """
        seen: dict[str, Tensor] = {}
        with ExitStack() as hooks:
            for tap in dict.fromkeys(self.taps):
                hooks.enter_context(observe_tap(self.model, tap, partial(seen.__setitem__, tap)))
            logits = self.model(images)
        unread = [tap for tap in self.taps if tap not in seen]
        if unread:
            raise UserError(f"tap {unread[0]!r} is never run by {type(self.model).__name__}, choose another")
        return Outputs(logits, tuple(seen[tap] for tap in self.taps))

    @torch.no_grad()
    def find_tap_shapes(self, image_size: int) -> list[tuple[int, ...]]:
        """Return the shape of each tap for one image, found by a pass."""
        was_training = self.training
        shapes = [tuple(tap.shape[1:]) for tap in self.eval()(make_black_image(self, image_size)).taps]
        self.train(was_training)
        return shapes


def make_black_image(model: nn.Module, image_size: int) -> Tensor:
    """Return (1, 3, image_size, image_size) on a network's device, in its precision."""
    like = next(model.parameters())
    return torch.zeros(1, 3, image_size, image_size, device=like.device, dtype=like.dtype)


def find_module(model: nn.Module, tap: str) -> nn.Module:
    """Return the module that a tap names.

    Raises:
        UserError: there is none; the message has the nearest name.
    """
    modules: dict[str, nn.Module] = {name: module for name, module in model.named_modules() if name}
    name = tap.removesuffix(MAP).removesuffix(INPUT)
    if name not in modules:
        raise UserError(f"tap {tap!r} is no module of {type(model).__name__}{suggest_nearest(name, modules)}")
    return modules[name]


def observe_tap(model: nn.Module, tap: str, read: Callable[[Tensor], object]) -> RemovableHandle:
    """Have `read` called with the features of a tap whenever the network runs."""
    module, form = find_module(model, tap), to_map if tap.endswith(MAP) else pool
    if tap.removesuffix(MAP).endswith(INPUT):
        return module.register_forward_pre_hook(lambda _, inputs: read(form(get_tensor(inputs[0]))) and None)
    return module.register_forward_hook(lambda _, inputs, output: read(form(get_tensor(output))) and None)


def get_tensor(output: Any) -> Any:
    """Return the first tensor of a tuple or list, which some blocks return."""
    is_several = isinstance(output, tuple | list) and output and isinstance(output[0], Tensor)
    return output[0] if is_several else output


def pool(features: Any) -> Tensor:
    """Average a map over space or tokens (B, T, C) over tokens; copy (B, C).

    The copy stays when the network goes on and changes `features` in place.

    Raises:
        UserError: features of any other rank, or no tensor.
    """
    if not isinstance(features, Tensor):
        raise UserError(f"a tap gave a {type(features).__name__}, choose a module that gives one tensor")
    if features.dim() == 4:
        return features.mean(dim=(1, 2) if has_channels_last(features) else (2, 3))
    if features.dim() == 3:
        return features.mean(dim=1)
    if features.dim() == 2:
        return features.clone()
    raise UserError(f"a tap gave a tensor of shape {tuple(features.shape)}, choose a module that gives features")


def to_map(features: Any) -> Tensor:
    """Return a copy of a map as (B, C, H, W), wherever its channels are.

    Raises:
        UserError: anything but a map.
    """
    if not isinstance(features, Tensor) or features.dim() != 4:
        given = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise UserError(f"a loss needs maps, and a tap gave {given}: choose a module that gives (B, C, H, W)")
    return (features.permute(0, 3, 1, 2) if has_channels_last(features) else features).clone()


def has_channels_last(features: Tensor) -> bool:
    """Return whether a map is (B, H, W, C): its equal sides come first."""
    first, second, third = features.shape[1:]
    return bool(first == second != third)


@torch.no_grad()
def read_head_inputs(model: nn.Module, images: Tensor, machine: Machine) -> Tensor:
    """Return what a network's classifier reads of `images`, (B, D), in its precision."""
    seen: list[Tensor] = []
    with (
        find_classifier(model)[1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])),
        machine.autocast(),
    ):
        model(images)
    return seen[-1].to(machine.dtype)
