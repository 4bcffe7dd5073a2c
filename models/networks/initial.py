"""Initial weights that the small-image networks share."""

from __future__ import annotations

from torch import nn


def init_convolutions(model: nn.Module) -> None:
    """Draw the weights of all convolutions as He et al. (ICCV 2015) do, by the number of outputs of each."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            # of a depthwise convolution too: all outputs count, not those of a group
            spread = (2 / (module.kernel_size[0] * module.kernel_size[1] * module.out_channels)) ** 0.5
            nn.init.normal_(module.weight, 0, spread)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
