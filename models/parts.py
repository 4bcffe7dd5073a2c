"""Parts of a network: what its taps depend on, what stands behind them, and what a phase trains.

What depends on what is asked of autograd: one image forwards, one pass backwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from errors import UserError
from models.heads import classifier
from models.structure import blocks_of
from models.taps import TappedModel, default_taps, on_tap

Trained = Literal["head", "last_block", "all"]


@dataclass(frozen=True)
class Part:
    """What stage 2 trains: parameters, and the modules whose batch statistics and dropout are in training mode."""

    parameters: list[nn.Parameter]
    modules: list[nn.Module]


def part_of(model: nn.Module, trained: Trained, taps: Sequence[str] | None, image_size: int) -> Part:
    """The head, the head and the last block, or all of a network.

    The last block is all that stands behind the block before the last: the last block itself, and layers
    between it and the head, as mobilenets have them. Without blocks it is all behind the shallower tap.

    Raises:
        UserError: `last_block` where nothing stands between that place and the head.
    """
    head = classifier(model)[1]
    if trained == "all":
        return Part(list(model.parameters()), [model])
    if trained == "head":
        return Part(list(head.parameters()), [head])
    blocks = blocks_of(model, image_size)
    start = blocks[-2] if len(blocks) > 1 else (taps or default_taps(model, image_size))[0]
    before = depends_on(model, [start], image_size)
    own = {id(parameter) for parameter in head.parameters()}
    behind = [p for p in depends_on(model, [], image_size) if id(p) not in {id(other) for other in before}]
    if all(id(parameter) in own for parameter in behind):
        raise UserError(f"kd.train: last_block: nothing stands between {start} and the head, use kd.train: head")
    return Part(behind, modules_after(model, start, image_size))


def depends_on(model: nn.Module, taps: Sequence[str], image_size: int) -> list[nn.Parameter]:
    """Parameters that some of `taps` depends on, or the logits where there are none, in the network's order."""
    parameters = list(model.parameters())
    wanted = [parameter.requires_grad for parameter in parameters]
    was_training = [module.training for module in model.modules()]
    model.eval().requires_grad_(True)
    with torch.enable_grad():
        out = TappedModel(model, taps)(_image(parameters[0], image_size))
        total = torch.stack([features.sum() for features in out.taps or (out.logits,)]).sum()
        reached = torch.autograd.grad(total, parameters, allow_unused=True) if total.requires_grad else ()
    for parameter, flag in zip(parameters, wanted, strict=True):
        parameter.requires_grad_(flag)
    for module, training in zip(model.modules(), was_training, strict=True):
        module.training = training
    return [parameter for parameter, gradient in zip(parameters, reached, strict=False) if gradient is not None]


@torch.no_grad()
def modules_after(model: nn.Module, tap: str, image_size: int) -> list[nn.Module]:
    """Modules without modules of their own that run after a tap was read, in the order in which they run."""
    order: list[nn.Module | None] = []  # None is the tap
    leaves = [module for module in model.modules() if not list(module.children())]
    hooks = [leaf.register_forward_hook(lambda module, *_: order.append(module)) for leaf in leaves]
    hooks.append(on_tap(model, tap, lambda features: order.append(None)))
    was_training = [module.training for module in model.modules()]
    model.eval()(_image(next(model.parameters()), image_size))
    for module, training in zip(model.modules(), was_training, strict=True):
        module.training = training
    for hook in hooks:
        hook.remove()
    last = len(order) - 1 - order[::-1].index(None)
    before = {id(module) for module in order[:last]}
    after = {id(module): module for module in order[last + 1 :] if module is not None and id(module) not in before}
    return list(after.values())


def share_of(parameters: Iterable[nn.Parameter], model: nn.Module) -> float:
    """Share in 0..1 of a network's parameters that `parameters` are, by number of values."""
    return sum(p.numel() for p in parameters) / sum(p.numel() for p in model.parameters())


def untrained_by_both(
    model: nn.Module, taps: Sequence[str], trained: Trained, image_size: int
) -> list[nn.Parameter]:
    """Parameters that the logits depend on and neither stage trains.

    Args:
        model: the student.
        taps: those that stage 1 has a loss at.
        trained: what stage 2 trains.
        image_size: side of the images in pixels.
    """
    reached = depends_on(model, taps, image_size) + part_of(model, trained, taps, image_size).parameters
    known = {id(parameter) for parameter in reached}
    return [parameter for parameter in depends_on(model, [], image_size) if id(parameter) not in known]


def _image(like: Tensor, image_size: int) -> Tensor:
    return torch.zeros(1, 3, image_size, image_size, device=like.device, dtype=like.dtype)
