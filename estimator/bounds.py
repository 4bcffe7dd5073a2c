"""The lower bound on mutual information that a contrastive loss gives."""

from __future__ import annotations

import math

from estimator.kraskov import NATS_PER_UNIT


def nce_lower_bound(loss: float, num_negatives: int, unit: str = "nats") -> float:
    """I >= log K - L, with L the mean contrastive loss in nats and K = `num_negatives` for each positive.

    Holds for the InfoNCE loss (van den Oord et al. 2018) and for the NCE loss of Contrastive Representation
    Distillation (Tian et al. 2020, I(T; S) >= log N - L with N negatives). Give the loss of one direction and
    one tap, without its weight, and with negatives drawn from the marginal: if negatives avoid the anchor's
    class, or any sample of the class is a positive, the sampled distributions are no longer the joint and the
    product of marginals and the number is an index of progress, not a bound.

    L >= 0, so the bound saturates: it never exceeds log K however large I is, and a value near log K says "at
    least this". A poor critic makes it loose, even negative, which says nothing about I. Raises ValueError
    for a non-finite loss or K < 1.
    """
    if not math.isfinite(loss) or num_negatives < 1 or unit not in NATS_PER_UNIT:
        raise ValueError(
            f"need a finite loss, a negative or more, nats or bits: got {loss}, {num_negatives}, {unit!r}"
        )
    return (math.log(num_negatives) - loss) / NATS_PER_UNIT[unit]
