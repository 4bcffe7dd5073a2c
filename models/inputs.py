"""What a network is shown of an image: at another size and normalisation than the data's, where it was made so.

Letters: B batch, S side of the data's images, R side of the network's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

INPUT_ADAPTER = "input_adapter"  # name of the module in a network that has one


@dataclass(frozen=True)
class InputFormat:
    """Size and normalisation of the images that a network reads."""

    size: int  # pixels a side
    mean: tuple[float, ...]  # of the three channels, in 0..1
    std: tuple[float, ...]


class InputAdapter(nn.Module):
    """From images as the data have them, (B, 3, S, S) normalised, to (B, 3, R, R) as a network reads them.

    x = d · s + m is a pixel in 0..1 of a value d that was normalised by the data's m and s, and (x − m') / s' what
    the network reads: one multiplication and one addition. Resizing is bilinear, with a wider filter where images
    shrink. Its two buffers are in no state dict.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, data: InputFormat, own: InputFormat) -> None:
        super().__init__()
        self.data, self.own = data, own
        mean, std, m, s = (
            torch.tensor(part, dtype=torch.float64) for part in (data.mean, data.std, own.mean, own.std)
        )
        self.register_buffer("scale", (std / s).float()[:, None, None], persistent=False)
        self.register_buffer("shift", ((mean - m) / s).float()[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:  # (B, 3, S, S) -> (B, 3, R, R)
        if images.shape[-1] != self.own.size:
            smaller = images.shape[-1] > self.own.size
            images = F.interpolate(images, [self.own.size] * 2, mode="bilinear", antialias=smaller)
        if (self.data.mean, self.data.std) != (self.own.mean, self.own.std):
            images = images * self.scale + self.shift
        return images


def add_input_adapter(model: nn.Module, data: InputFormat, own: InputFormat) -> nn.Module:
    """Have a network read images of `data` as `own` says; nothing is done where the two are the same.

    Names of modules and of weights stay as they are.
    """
    if data != own:
        model.add_module(INPUT_ADAPTER, InputAdapter(data, own))
        model.register_forward_pre_hook(_read_adapted)
    return model


def _read_adapted(model: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return (model.get_submodule(INPUT_ADAPTER)(inputs[0]), *inputs[1:])


def find_input_adapter(model: nn.Module) -> InputAdapter | None:
    """What a network's images go through first, None where it reads them as they are."""
    found = dict(model.named_children()).get(INPUT_ADAPTER)
    return found if isinstance(found, InputAdapter) else None


def round_to_float32(values: Sequence[float]) -> tuple[float, ...]:
    """Numbers as float32 holds them, so that equal ones compare equal."""
    return tuple(torch.tensor(list(values), dtype=torch.float32).tolist())
