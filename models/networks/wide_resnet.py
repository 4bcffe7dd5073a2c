"""Wide residual networks for small images (Zagoruyko & Komodakis, BMVC 2016).

Letters: B batch, C channels, H x W map.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.networks.initial import init_convolutions


class PreactivatedBlock(nn.Module):
    """Two 3x3 convolutions, each behind batch norm and ReLU, and a shortcut (He et al., ECCV 2016)."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        if in_channels != channels:
            self.convShortcut = nn.Conv2d(in_channels, channels, 1, stride, bias=False)  # the key of RepDistiller

    def forward(self, x: Tensor) -> Tensor:
        activated = F.relu(self.bn1(x))
        out: Tensor = self.conv2(F.relu(self.bn2(self.conv1(activated))))
        return out + (self.convShortcut(activated) if hasattr(self, "convShortcut") else x)


class WideStage(nn.Module):
    """Blocks on maps of one size, of which the first may halve it."""

    def __init__(self, blocks: int, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        first = PreactivatedBlock(in_channels, channels, stride)
        self.layer = nn.Sequential(first, *(PreactivatedBlock(channels, channels, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


class WideResNet(nn.Module):
    """Network of depth 6n + 4 whose stages have 16, 32 and 64 times `width` channels.

    Args:
        depth: 6n + 4, for example 16 or 40.
        width: factor of the channels.
        num_classes: outputs of the classifier `fc`.
    """

    def __init__(self, depth: int, width: int, num_classes: int) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        channels = [16, 16 * width, 32 * width, 64 * width]
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.block1 = WideStage(blocks, channels[0], channels[1], 1)
        self.block2 = WideStage(blocks, channels[1], channels[2], 2)
        self.block3 = WideStage(blocks, channels[2], channels[3], 2)
        self.bn1 = nn.BatchNorm2d(channels[3])
        self.relu = nn.ReLU()  # a module, so that the last map can be read behind it
        self.fc = nn.Linear(channels[3], num_classes)
        init_convolutions(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, num_classes)
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        x = F.adaptive_avg_pool2d(self.relu(self.bn1(x)), 1)
        logits: Tensor = self.fc(torch.flatten(x, 1))
        return logits
