"""Taps: named places in a network that are read beside its logits.

A tap is a module's name, and then what the module gives, before anything that follows changes it in place; or a
module's name with `:input` behind it, and then what the module reads.

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

from errors import UserError, nearest
from models.heads import classifier
from models.machine import Machine
from models.structure import stage_before

INPUT = ":input"


class Outputs(NamedTuple):
    """What a network says of a batch."""

    logits: Tensor  # (B, classes)
    taps: tuple[Tensor, ...]  # one (B, C) per tap, pooled


class TappedModel(nn.Module):
    """A network that returns its logits and its pooled taps in one pass; weights are shared with `model`.

    Args:
        model: any network.
        taps: as this file's head says, shallow first.

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
        """Logits and pooled taps.

        Raises:
            UserError: a tap whose module was not run, or whose tensor `pool` refuses.
        """
        seen: dict[str, Tensor] = {}
        with ExitStack() as hooks:
            for tap in dict.fromkeys(self.taps):
                hooks.enter_context(on_tap(self.model, tap, partial(seen.__setitem__, tap)))
            logits = self.model(images)
        unread = [tap for tap in self.taps if tap not in seen]
        if unread:
            raise UserError(f"tap {unread[0]!r} is never run by {type(self.model).__name__}, choose another")
        return Outputs(logits, tuple(seen[tap] for tap in self.taps))

    @torch.no_grad()
    def tap_dims(self, image_size: int) -> list[int]:
        """Channels of each tap, found by one image through the network."""
        was_training = self.training
        parameter = next(self.parameters())
        image = torch.zeros(1, 3, image_size, image_size, device=parameter.device, dtype=parameter.dtype)
        dims = [tap.shape[1] for tap in self.eval()(image).taps]
        self.train(was_training)
        return dims


def find_module(model: nn.Module, tap: str) -> nn.Module:
    """The module that a tap names.

    Raises:
        UserError: there is none; the message has the nearest name.
    """
    modules = dict(model.named_modules())
    name = tap.removesuffix(INPUT)
    if not name or name not in modules:
        known = [known for known in modules if known]
        raise UserError(f"tap {tap!r} is no module of {type(model).__name__}{nearest(name, known)}")
    module: nn.Module = modules[name]
    return module


def on_tap(model: nn.Module, tap: str, read: Callable[[Tensor], object]) -> RemovableHandle:
    """Have `read` called with the pooled features (B, C) of a tap whenever the network runs."""
    module = find_module(model, tap)
    if tap.endswith(INPUT):
        return module.register_forward_pre_hook(lambda _, inputs: read(pool(inputs[0])) and None)
    return module.register_forward_hook(lambda _, inputs, output: read(pool(output)) and None)


def pool(features: Any) -> Tensor:
    """Average a map (B, C, H, W) or (B, H, W, C) over space or tokens (B, T, C) over tokens; (B, C) is copied.

    Images are square and so are their maps: channels come last where the sides in front of them are equal and the
    last two numbers are not. The result stays as it is when the network goes on and changes `features` in place.

    Raises:
        UserError: features of any other rank, or what is no tensor (an attention's pair of outputs).
    """
    if not isinstance(features, Tensor):
        raise UserError(f"a tap gave a {type(features).__name__}, choose a module that gives one tensor")
    if features.dim() == 4:
        first, second, third = features.shape[1:]
        return features.mean(dim=(1, 2) if first == second != third else (2, 3))
    if features.dim() == 3:
        return features.mean(dim=1)
    if features.dim() == 2:
        return features.clone()
    raise UserError(f"a tap gave a tensor of shape {tuple(features.shape)}, choose a module that gives features")


@torch.no_grad()
def check_order(model: nn.Module, taps: Sequence[str], image_size: int) -> None:
    """See that taps are read one after the other and none behind the classifier.

    Args:
        model: moved to the meta device, on which sizes are followed and nothing is computed.
        taps: shallow first.
        image_size: side of the images in pixels.

    Raises:
        UserError: they are not, or what `TappedModel` raises, or images that are too small for the network.
    """
    order: list[str] = []
    head = classifier(model)[0]
    if head in taps:
        raise UserError(f"tap '{head}' is the classifier, which stage 1 leaves alone: name {head}{INPUT}")
    tapped = TappedModel(model.to("meta").eval(), taps)

    def note(tap: str, features: Tensor) -> None:
        order.append(tap)

    with ExitStack() as hooks:
        for tap in taps:
            hooks.enter_context(on_tap(model, tap, partial(note, tap)))
        try:
            tapped(torch.empty(1, 3, image_size, image_size, device="meta"))
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise UserError(f"images of data.image_size={image_size} do not go through it: {reason}") from None
    last = list(dict.fromkeys(reversed(order)))  # in the order in which each is read for the last time, backwards
    if last != list(reversed(taps)):
        raise UserError(f"taps [{', '.join(taps)}] are in the wrong order, write [{', '.join(reversed(taps))}]")


def default_taps(model: nn.Module, image_size: int) -> list[str]:
    """The end of the block (or stage) before the last, and what the classifier reads: nothing of the features lies
    beyond. `image_size` is the side in pixels of the images that the network is found out with.

    Raises:
        UserError: a network of one stage, whose taps must be named, or that images do not go through.
    """
    before = stage_before(model, image_size)
    if before is None:
        name = type(model).__name__
        raise UserError(
            f"{name} has no blocks or stages: name two modules with taps: [name, {default_deep_tap(model)}]"
        )
    return [before, default_deep_tap(model)]


def default_deep_tap(model: nn.Module) -> str:
    """What the classifier reads."""
    return f"{classifier(model)[0]}{INPUT}"


@torch.no_grad()
def head_inputs(model: nn.Module, images: Tensor, machine: Machine) -> Tensor:
    """What the classifier of a network reads of `images`, (B, D), in the precision in which it reads it."""
    seen: list[Tensor] = []
    with (
        classifier(model)[1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])),
        machine.autocast(),
    ):
        model(images)
    return seen[-1].to(machine.dtype)
