"""MobileNetV2 at half width for small images (Sandler et al., CVPR 2018).

Letters: B batch, H x W map.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.networks.initial import init_convolutions

STAGES = (  # expansion, channels before the width is halved, blocks, stride of the first
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
LAST = 1280  # channels of the last map, whatever the width


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, 1x1 projection without an activation; added where the shape stays."""

    def __init__(self, in_channels: int, channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        self.is_residual = stride == 1 and in_channels == channels
        wide = in_channels * expansion
        self.conv = nn.Sequential(
            *_list_convolution(in_channels, wide, kernel=1),
            *_list_convolution(wide, wide, kernel=3, stride=stride, groups=wide),
            *_list_convolution(wide, channels, kernel=1)[:2],
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return x + out if self.is_residual else out


class MobileNetV2(nn.Module):
    """A stem of stride 2, seven stages of inverted residuals, 1,280 channels, a linear classifier.

    Args:
        num_classes: outputs of the classifier `classifier.0`.
        width: factor of the channels.
    """

    def __init__(self, num_classes: int, width: float = 0.5) -> None:
        super().__init__()
        before = int(32 * width)
        self.conv1 = nn.Sequential(*_list_convolution(3, before, kernel=3, stride=2))
        self.blocks = nn.ModuleList()
        for expansion, full, count, stride in STAGES:
            channels, layers = int(full * width), []
            for number in range(count):
                layers.append(InvertedResidual(before, channels, 1 if number else stride, expansion))
                before = channels
            self.blocks.append(nn.Sequential(*layers))
        self.conv2 = nn.Sequential(*_list_convolution(before, LAST, kernel=1))
        head = nn.Linear(LAST, num_classes)
        self.classifier = nn.Sequential(head)
        init_convolutions(self)
        nn.init.normal_(head.weight, 0, 0.01)
        nn.init.zeros_(head.bias)

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, num_classes)
        x = self.conv1(x)
        for block in self.blocks:
            x = block(x)
        x = F.adaptive_avg_pool2d(self.conv2(x), 1)
        logits: Tensor = self.classifier(torch.flatten(x, 1))
        return logits


def _list_convolution(
    in_channels: int, channels: int, *, kernel: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    convolution = nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
