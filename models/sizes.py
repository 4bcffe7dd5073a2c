"""Which image sizes go through a network, tried on torch's meta device, where nothing is computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from errors import UserError
from models.structure import describe_error, forward_black_images

STEP, LARGEST = 32, 640  # pixels a side: multiples of STEP are tried first, up to LARGEST

Build = Callable[[int], nn.Module]  # makes a network for images of that many pixels a side


def build_for(build: Build, image_size: int) -> nn.Module:
    """A network that images of `image_size` pixels a side go through.

    Raises:
        UserError: they do not, or it cannot be built; the message names the smallest size that works, if any does.
    """
    try:
        model = build(image_size)
        _pass(model, image_size)
    except UserError as error:
        found = find_smallest_size(build, image_size)
        hint = f": the smallest image_size that works is {found}" if found else ""
        raise UserError(f"{error}{hint}") from error
    return model


class Weightless(TorchFunctionMode):
    """Layers that are made in this context have weights on the meta device: no memory, no values."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func is torch.empty and given.get("device") is None:
            given = {**given, "device": "meta"}
        return func(*args, **given)


def find_smallest_size(build: Build, above: int) -> int | None:
    """The smallest side above `above` at which images go through, None where that is so up to `LARGEST` for none.

    Sizes between two multiples of `STEP` are halved, so of a network that takes every third size some are missed.
    """
    tried = range((above // STEP + 1) * STEP, LARGEST + 1, STEP)
    high = next((size for size in tried if _works(build, size)), None)
    if high is None:
        return None
    low = max(above, high - STEP)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _works(build, middle) else (middle, high)
    return high


def _works(build: Build, image_size: int) -> bool:
    try:
        with Weightless():
            model = build(image_size)
        model.to("meta")
        _pass(model, image_size)
    except UserError:
        return False
    return True


def _pass(model: nn.Module, image_size: int) -> None:
    try:
        forward_black_images(model, 1, image_size)
    except Exception as error:  # code of one's own may raise anything
        raise UserError(
            f"images of {image_size} x {image_size} pixels do not go through it ({describe_error(error)})"
        ) from error
