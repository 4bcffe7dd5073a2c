"""The lower bound on mutual information that a contrastive loss gives."""

from __future__ import annotations

import math


def compute_nce_bound(loss: float, num_negatives: int) -> float:
    """Return log K - L <= I, L the contrastive loss in nats with K negatives.

    Holds for the InfoNCE loss (van den Oord et al. 2018) and for the NCE loss of Contrastive Representation
    Distillation (Tian et al. 2020, I(T; S) >= log N - L with N negatives). Give the loss of one direction and
    one tap, without its weight, and with negatives drawn from the marginal: if negatives avoid the anchor's
    class, or any sample of the class is a positive, the number is an index of progress, not a bound.

    The bound never exceeds log K however large I is; a poor critic makes it loose, even negative. Raises
    ValueError for a non-finite loss or K < 1.
    """
    if not math.isfinite(loss) or num_negatives < 1:
        raise ValueError(f"need a finite loss and a negative or more: got {loss}, {num_negatives}")
    return math.log(num_negatives) - loss
