"""Adapts images to the size and normalisation that a network was trained on.

Letters: B batch, S side of the data's images, R side of the network's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    """From the data's images (B, 3, S, S) to a network's (B, 3, R, R).

    A value d that the data's mean m and std s normalised is the pixel x = d · s + m; the network reads
    (x − m') / s'. Both together are one multiplication and one addition. Resizing is bilinear, with antialiasing
    where images shrink. The two buffers are in no state dict.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, data: InputFormat, own: InputFormat) -> None:
        super().__init__()
        self.data, self.own = data, own
        mean, std, own_mean, own_std = (
            torch.tensor(part, dtype=torch.float64) for part in (data.mean, data.std, own.mean, own.std)
        )
        self.register_buffer("scale", (std / own_std).float()[:, None, None], persistent=False)
        self.register_buffer("shift", ((mean - own_mean) / own_std).float()[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:  # (B, 3, S, S) -> (B, 3, R, R)
        if images.shape[-1] != self.own.size:
            is_smaller = images.shape[-1] > self.own.size
            images = F.interpolate(images, [self.own.size] * 2, mode="bilinear", antialias=is_smaller)
        if (self.data.mean, self.data.std) != (self.own.mean, self.own.std):
            images = images * self.scale + self.shift
        return images


def add_input_adapter(model: nn.Module, data: InputFormat, own: InputFormat) -> nn.Module:
    """Have a network read the data's images in its own format, if it differs."""
    if data != own:
        model.add_module(INPUT_ADAPTER, InputAdapter(data, own))
        # the hook finds the adapter by name, so that a copy of the network uses its own
        model.register_forward_pre_hook(
            lambda network, inputs: (network.get_submodule(INPUT_ADAPTER)(inputs[0]), *inputs[1:])
        )
    return model


def round_to_float32(values: Sequence[float]) -> tuple[float, ...]:
    """Return numbers as float32 holds them, so that equal ones compare equal."""
    return tuple(torch.tensor(list(values), dtype=torch.float32).tolist())
