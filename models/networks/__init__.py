"""Small-image networks that distillation papers compare on, under the names and keys of RepDistiller's files."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from models.networks.mobilenet import MobileNetV2
from models.networks.resnet import SHORTCUT_DEPTHS, CifarResNet, ShortcutResNet
from models.networks.shufflenet import ShuffleV1, ShuffleV2
from models.networks.vgg import PLANS, CifarVGG
from models.networks.wide_resnet import WideResNet

# name -> what builds it from the number of classes
SMALL_NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    **{f"resnet{depth}": partial(CifarResNet, depth, (16, 16, 32, 64)) for depth in (8, 14, 20, 32, 44, 56, 110)},
    **{f"resnet{depth}x4": partial(CifarResNet, depth, (32, 64, 128, 256)) for depth in (8, 32)},
    **{f"ResNet{depth}": partial(ShortcutResNet, depth) for depth in SHORTCUT_DEPTHS},
    **{f"wrn_{depth}_{width}": partial(WideResNet, depth, width) for depth in (16, 40) for width in (1, 2)},
    **{f"vgg{depth}": partial(CifarVGG, depth) for depth in PLANS},
    "MobileNetV2": MobileNetV2,
    "ShuffleV1": ShuffleV1,
    "ShuffleV2": ShuffleV2,
}
