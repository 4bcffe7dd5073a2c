"""The small inputs on which other code has computed losses in float64, and ways to ask ours about them."""

from __future__ import annotations

import torch
from torch import Tensor


def make_matrix(*rows: tuple[float, ...]) -> Tensor:
    """Return rows as a float64 tensor."""
    return torch.tensor(rows, dtype=torch.float64)


Z_STUDENT = make_matrix((1, 2, 3), (0, 1, 0), (2, 0, 1))  # logits (3, 3)
Z_TEACHER = make_matrix((2, 0, 1), (1, 1, 3), (0, 3, 1))
LABELS = torch.tensor([0, 2, 1])

STUDENT = make_matrix((1, 0), (0, 2), (1, 1))  # features (3, 2)
TEACHER = make_matrix((1, 0, 1), (0, 1, 0), (2, 1, 0))  # features (3, 3)
PROJECTED = STUDENT @ make_matrix((1, 2), (0, -1), (1, 1)).T  # (3, 3)
WEIGHT, BIAS = make_matrix((1, -1, 0), (2, 0, 1)), make_matrix((0.5, -0.5))[0]  # the teacher's classifier

MAP = (torch.arange(24, dtype=torch.float64) / 10 - 1).view(3, 2, 2, 2)
TEACHER_MAP = (torch.arange(36, dtype=torch.float64).flip(0) / 10 - 1).view(3, 3, 2, 2)


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Return normal numbers, float64."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def rotate(features: Tensor, seed: int = 0) -> Tensor:
    """Return features (B, D) in another orthonormal basis."""
    size = features.shape[1]
    return features @ torch.linalg.qr(draw(size, size, seed=seed)).Q
