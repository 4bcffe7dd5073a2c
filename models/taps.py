"""Taps: named places in a network whose output is read beside its logits.

Letters: B batch, C channels, H x W map, T tokens.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from errors import UserError, nearest
from models.machine import Machine
from models.zoo import classifier

BLOCK_NAMES = (
    "BasicBlock",
    "Bottleneck",
    "EncoderBlock",
    "InvertedResidual",
    "CNBlock",
    "MBConv",
    "FusedMBConv",
)


class Outputs(NamedTuple):
    """What a network says of a batch."""

    logits: Tensor  # (B, classes)
    taps: tuple[Tensor, ...]  # one (B, C) per tap, pooled


class TappedModel(nn.Module):
    """A network that returns its logits and its pooled taps in one pass; weights are shared with `model`.

    Args:
        model: any network that torch.fx can trace.
        taps: module names or torchvision graph node names, shallow first.

    Raises:
        UserError: a tap that does not exist in the network, or one that `pool` refuses.
    """

    def __init__(self, model: nn.Module, taps: Sequence[str]) -> None:
        super().__init__()
        nodes, _ = get_graph_node_names(model)
        self.logits = nodes[-1]
        self.ends = [_last_node(tap, nodes, model) for tap in taps]
        names = dict(zip([self.logits, *self.ends], [self.logits, *taps], strict=True))  # a node is asked for once
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # train and eval graphs may differ in dropout nodes
            self.extractor = create_feature_extractor(model, {name: end for end, name in names.items()})
        self.train(model.training)

    def forward(self, images: Tensor) -> Outputs:  # (B, 3, H, W)
        out = self.extractor(images)
        return Outputs(out[self.logits], tuple(pool(out[end]) for end in self.ends))

    @torch.no_grad()
    def tap_dims(self, image_size: int) -> list[int]:
        """Channels of each tap, found by one image through the network."""
        was_training = self.training
        parameter = next(self.parameters())
        image = torch.zeros(1, 3, image_size, image_size, device=parameter.device, dtype=parameter.dtype)
        dims = [tap.shape[1] for tap in self.eval()(image).taps]
        self.train(was_training)
        return dims


def _last_node(tap: str, nodes: Sequence[str], model: nn.Module) -> str:
    """The graph node whose output a tap reads: the last one inside it."""
    inside = [node for node in nodes if f"{node}.".startswith(f"{tap}.")]
    if not inside:
        modules = [name for name, _ in model.named_modules()]
        known = [name for name in modules if any(f"{node}.".startswith(f"{name}.") for node in nodes)]
        raise UserError(f"tap {tap!r} is no module of {type(model).__name__}{nearest(tap, [*known, *nodes])}")
    return inside[-1]


def pool(features: Tensor) -> Tensor:
    """Average a map (B, C, H, W) over space or tokens (B, T, C) over tokens; (B, C) passes unchanged.

    Raises:
        UserError: features of any other rank, or what is no tensor (an attention's pair of outputs).
    """
    if not isinstance(features, Tensor):
        raise UserError(f"a tap gave a {type(features).__name__}, choose a module that gives one tensor")
    if features.dim() == 4:
        return features.mean(dim=(2, 3))
    if features.dim() == 3:
        return features.mean(dim=1)
    if features.dim() == 2:
        return features
    raise UserError(f"a tap gave a tensor of shape {tuple(features.shape)}, choose a module that gives features")


def default_taps(model: nn.Module) -> list[str]:
    """Names of the last two residual (or encoder) blocks of a network.

    Raises:
        UserError: a network without such blocks, whose taps must be named.
    """
    blocks = blocks_of(model)
    if len(blocks) < 2:
        raise UserError(f"{type(model).__name__} has no residual blocks: name two modules with taps: [name, name]")
    return blocks[-2:]


def blocks_of(model: nn.Module) -> list[str]:
    """Names of all residual (or encoder) blocks in the order of the network."""
    return [name for name, module in model.named_modules() if type(module).__name__ in BLOCK_NAMES]


def last_block(model: nn.Module) -> nn.Module:
    """The last residual (or encoder) block: what stage 2 fine-tunes beside the head."""
    return model.get_submodule(default_taps(model)[-1])


@torch.no_grad()
def head_inputs(model: nn.Module, images: Tensor, machine: Machine) -> Tensor:
    """What the classifier of a network reads of `images`, (B, D), in the precision in which it reads it."""
    seen: list[Tensor] = []
    with (
        classifier(model)[1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])),
        machine.autocast(),
    ):
        model(images)
    return seen[-1].to(torch.bfloat16 if machine.bfloat16 else torch.float32)
