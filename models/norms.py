"""Batch norm's running statistics, which evaluation uses.

After T steps with momentum m a share (1 − m)^T of them is still their initial values, mean 0 and variance 1. Where
a channel's variance is small, a slow momentum then lets a network that trains well answer at random.
"""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

DEFAULT_MOMENTUM = 0.1  # torch's
NOTABLE_SHARE = 1e-3  # of initial statistics


def find_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return the batch norm layers with running statistics at a fixed momentum."""
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    return [layer for layer in layers if layer.track_running_stats and layer.momentum is not None]


def set_momentum(model: nn.Module, momentum: float | None) -> nn.Module:
    """Set the momentum of all these layers; None leaves each at its own."""
    for layer in find_norms(model) if momentum is not None else []:
        layer.momentum = momentum
    return model


def compute_share_left(model: nn.Module, steps: int) -> float:
    """Return the share of initial statistics that `steps` leave in the slowest layer.

    It is 0 where no layer is slower than torch's momentum.
    """
    momenta = [layer.momentum for layer in find_norms(model) if layer.momentum is not None]
    slowest = min(momenta, default=DEFAULT_MOMENTUM)
    return (1 - slowest) ** steps if slowest < DEFAULT_MOMENTUM else 0.0
