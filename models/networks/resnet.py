"""Residual networks for small images: the CIFAR family of He et al. (CVPR 2016, Sec. 4.2), and 18/34/50.

Letters: B batch, C channels, H x W map.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.models.resnet import ResNet as TorchvisionResNet


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, projected by 1x1 where the shape changes (option B)."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.downsample(x))


class CifarResNet(nn.Module):
    """ResNet of depth 6n + 2: a 3x3 stem, three stages of n blocks, global average pool, linear head.

    Args:
        depth: 6n + 2, for example 8, 20, 110.
        channels: of the stem and of the three stages.
        num_classes: outputs of the head `fc`.
    """

    layer1: nn.Module
    layer2: nn.Module
    layer3: nn.Module

    def __init__(self, depth: int, channels: tuple[int, int, int, int], num_classes: int) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"depth must be 6n + 2 and at least 8, not {depth}")
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, channels[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels[0])
        for stage, (before, after) in enumerate(zip(channels, channels[1:], strict=False), start=1):
            stride = 1 if stage == 1 else 2
            layers = [
                BasicBlock(before, after, stride),
                *(BasicBlock(after, after, 1) for _ in range(blocks - 1)),
            ]
            self.add_module(f"layer{stage}", nn.Sequential(*layers))
        self.fc = nn.Linear(channels[-1], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, num_classes)
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in (self.layer1, self.layer2, self.layer3):
            x = stage(x)
        logits: Tensor = self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return logits


SHORTCUT_DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}  # blocks of each stage


class ShortcutBlock(nn.Module):
    """Two 3x3 convolutions, or 1x1, 3x3 and 1x1 where `expansion` is 4, and a shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        out_channels, deep = channels * expansion, expansion > 1
        kernel, strides = (1, (1, stride)) if deep else (3, (stride, 1))
        self.conv1 = nn.Conv2d(in_channels, channels, kernel, strides[0], padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, strides[1], padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        if deep:
            self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
            self.bn3 = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != out_channels:
            projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if hasattr(self, "conv3"):
            out = self.bn3(self.conv3(F.relu(out)))
        return F.relu(out + self.shortcut(x))


class ShortcutResNet(nn.Module):
    """ResNet-18, 34 or 50 with a 3x3 stem: torchvision's with `stem: cifar`, under RepDistiller's keys.

    Args:
        depth: 18, 34 or 50.
        num_classes: outputs of the classifier `linear`.
    """

    def __init__(self, depth: int, num_classes: int) -> None:
        super().__init__()
        expansion = 4 if depth == 50 else 1
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        before = 64
        for stage, blocks in enumerate(SHORTCUT_DEPTHS[depth]):
            channels, layers = 64 * 2**stage, []
            for number in range(blocks):
                stride = 2 if stage and number == 0 else 1
                layers.append(ShortcutBlock(before, channels, stride, expansion))
                before = channels * expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
        self.linear = nn.Linear(before, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, num_classes)
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        logits: Tensor = self.linear(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return logits


def torchvision_resnet(name: str, weights: str | None, stem: str, options: Mapping[str, Any]) -> TorchvisionResNet:
    """torchvision's resnet `name`; stem "cifar" swaps the 7x7 stride-2 convolution and pooling for one 3x3."""
    model: TorchvisionResNet = get_model(name, weights=weights, **options)
    if stem == "cifar":
        model.conv1 = nn.Conv2d(3, 64, 3, 1, padding=1, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
        model.maxpool = nn.Identity()
    return model
