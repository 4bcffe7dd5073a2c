"""ShuffleNet V1 and V2 for small images (Zhang et al., CVPR 2018; Ma et al., ECCV 2018).

Letters: B batch, C channels, H x W map, G groups.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STEM = 24  # channels of the stem
GROUPS = 3  # of V1's 1x1 convolutions, three groups with 240, 480 and 960 channels
V1_STAGES = ((240, 4), (480, 8), (960, 4))  # channels and blocks
V2_STAGES = ((116, 4), (232, 8), (464, 4))
V2_LAST = 1024


def shuffle_channels(x: Tensor, groups: int) -> Tensor:
    """Return (B, C, H, W) with the channels of all groups interleaved."""
    batch, channels, height, width = x.shape
    split = x.reshape(batch, groups, channels // groups, height, width)
    return split.transpose(1, 2).reshape(batch, channels, height, width)


class GroupedBottleneck(nn.Module):
    """V1: grouped 1x1, shuffle, 3x3 depthwise, grouped 1x1; added to the input, or joined to it where halved."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        narrow = channels // 4
        self.stride = stride
        self.groups = 1 if in_channels == STEM else GROUPS
        self.conv1 = nn.Conv2d(in_channels, narrow, 1, groups=self.groups, bias=False)
        self.bn1 = nn.BatchNorm2d(narrow)
        self.conv2 = nn.Conv2d(narrow, narrow, 3, stride, padding=1, groups=narrow, bias=False)
        self.bn2 = nn.BatchNorm2d(narrow)
        self.conv3 = nn.Conv2d(narrow, channels, 1, groups=GROUPS, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        out = shuffle_channels(F.relu(self.bn1(self.conv1(x))), self.groups)
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        if self.stride == 1:
            return F.relu(out + x)
        return F.relu(torch.cat([out, F.avg_pool2d(x, 3, stride=2, padding=1)], 1))


class SplitBlock(nn.Module):
    """V2: half of the channels pass, the others go through 1x1, 3x3 depthwise and 1x1; then all are shuffled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = nn.Conv2d(half, half, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(half, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        passed, out = x.chunk(2, dim=1)
        out = F.relu(self.bn1(self.conv1(out)))
        out = self.bn2(self.conv2(out))
        out = F.relu(self.bn3(self.conv3(out)))
        return shuffle_channels(torch.cat([passed, out], 1), 2)


class DownBlock(nn.Module):
    """V2: two branches that halve the map, joined and shuffled."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = nn.Conv2d(in_channels, in_channels, 3, 2, padding=1, groups=in_channels, bias=False)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv2 = nn.Conv2d(in_channels, half, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(in_channels, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv4 = nn.Conv2d(half, half, 3, 2, padding=1, groups=half, bias=False)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = nn.Conv2d(half, half, 1, bias=False)
        self.bn5 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        left = F.relu(self.bn2(self.conv2(self.bn1(self.conv1(x)))))
        right = self.bn4(self.conv4(F.relu(self.bn3(self.conv3(x)))))
        right = F.relu(self.bn5(self.conv5(right)))
        return shuffle_channels(torch.cat([left, right], 1), 2)


class ShuffleV1(nn.Module):
    """A 1x1 stem, three stages of grouped bottlenecks, global average pool, linear classifier `linear`."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, STEM, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.layer1, self.layer2, self.layer3 = self._build_stages(V1_STAGES)
        self.linear = nn.Linear(V1_STAGES[-1][0], num_classes)

    @staticmethod
    def _build_stages(stages: Sequence[tuple[int, int]]) -> list[nn.Sequential]:
        before, built = STEM, []
        for channels, blocks in stages:
            first = GroupedBottleneck(before, channels - before, 2)
            built.append(
                nn.Sequential(first, *(GroupedBottleneck(channels, channels, 1) for _ in range(blocks - 1)))
            )
            before = channels
        return built

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, num_classes)
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        logits: Tensor = self.linear(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return logits


class ShuffleV2(nn.Module):
    """A 1x1 stem, three stages of split blocks, 1,024 channels, linear classifier `linear`."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, STEM, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.layer1, self.layer2, self.layer3 = self._build_stages(V2_STAGES)
        self.conv2 = nn.Conv2d(V2_STAGES[-1][0], V2_LAST, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(V2_LAST)
        self.relu = nn.ReLU()  # a module, so that the last map can be read behind it
        self.linear = nn.Linear(V2_LAST, num_classes)

    @staticmethod
    def _build_stages(stages: Sequence[tuple[int, int]]) -> list[nn.Sequential]:
        before, built = STEM, []
        for channels, blocks in stages:
            first = DownBlock(before, channels)
            built.append(nn.Sequential(first, *(SplitBlock(channels) for _ in range(blocks - 1))))
            before = channels
        return built

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, num_classes)
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        x = F.adaptive_avg_pool2d(self.relu(self.bn2(self.conv2(x))), 1)
        logits: Tensor = self.linear(torch.flatten(x, 1))
        return logits
