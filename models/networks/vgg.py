"""VGG for small images: batch norm, four poolings at most, one linear layer (Simonyan & Zisserman, ICLR 2015).

Letters: B batch, H x W map.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.networks.initial import init_convolutions

# depth -> convolutions of each of five blocks
PLANS = {8: (1, 1, 1, 1, 1), 11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
CHANNELS = (64, 128, 256, 512, 512)
LARGE = 64  # pixels a side from which the fourth block is pooled too


class CifarVGG(nn.Module):
    """Five blocks of 3x3 convolutions with batch norm, the first three or four of them pooled.

    Args:
        depth: 8, 11, 13, 16 or 19, as the papers on distillation count.
        num_classes: outputs of the classifier `classifier`.
    """

    def __init__(self, depth: int, num_classes: int) -> None:
        super().__init__()
        before = 3
        for number, (count, channels) in enumerate(zip(PLANS[depth], CHANNELS, strict=True)):
            layers: list[nn.Module] = []
            for _ in range(count):
                layers += [
                    nn.Conv2d(before, channels, 3, padding=1),
                    nn.BatchNorm2d(channels),
                    nn.ReLU(inplace=True),
                ]
                before = channels
            self.add_module(f"block{number}", nn.Sequential(*layers))
        self.classifier = nn.Linear(CHANNELS[-1], num_classes)
        init_convolutions(self)
        nn.init.normal_(self.classifier.weight, 0, 0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, num_classes)
        pools = 4 if x.shape[2] >= LARGE else 3
        for number in range(5):
            x = self.get_submodule(f"block{number}")(x)
            if number < pools:
                x = F.max_pool2d(x, 2)
        logits: Tensor = self.classifier(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return logits
