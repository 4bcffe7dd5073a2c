"""Batch norm's running statistics, which evaluation uses: how fast they follow the batches.

After T steps with momentum m a share (1 − m)^T of them is what they were at first, mean 0 and variance 1. Where a
channel's variance is small it then comes out far too small, layer upon layer, and a network that trains well
answers at random.
"""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

DEFAULT_MOMENTUM = 0.1  # torch's own momentum
NOTABLE_SHARE = 1e-3  # share of the first statistics that is worth a word


def find_norms(model: nn.Module) -> list[_BatchNorm]:
    """Layers of batch norm with running statistics that follow at a fixed momentum."""
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    return [layer for layer in layers if layer.track_running_stats and layer.momentum is not None]


def set_momentum(model: nn.Module, momentum: float | None) -> nn.Module:
    """Have all of them follow at this momentum, None leaves each at its own."""
    if momentum is not None:
        for layer in find_norms(model):
            layer.momentum = momentum
    return model


def compute_share_left(model: nn.Module, steps: int) -> float:
    """Share of the first statistics that `steps` leave in the slowest layer; 0 where none is slower than usual."""
    momenta = [layer.momentum for layer in find_norms(model) if layer.momentum is not None]
    slowest = min(momenta, default=DEFAULT_MOMENTUM)
    return (1 - slowest) ** steps if slowest < DEFAULT_MOMENTUM else 0.0
