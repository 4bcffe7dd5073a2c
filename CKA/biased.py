"""Linear CKA with the biased HSIC of Kornblith et al. (2019), which most papers print.

It exceeds the unbiased value, the more so the fewer samples there are for their dimensions.

Letters: N samples, D dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor


def compute_biased_linear_cka(X: Tensor, Y: Tensor) -> float | None:
    """Return |Y'X|² / (|X'X| |Y'Y|) of centred features X (N, D1) and Y (N, D2), with Frobenius norms.

    Computed in float64. None where the features of a side are the same for all samples, or not finite.
    """
    X, Y = (features.double() - features.double().mean(0) for features in (X, Y))
    scale = torch.linalg.norm(X.T @ X) * torch.linalg.norm(Y.T @ Y)
    if not torch.isfinite(scale) or scale == 0:
        return None
    return float(torch.linalg.norm(Y.T @ X).square() / scale)
