"""Losses of an anchor's scores with its positive and its negatives, which come a block at a time.

A block's scores are turned into the weights of its entries in the gradient while a processor's cache holds them.
So neither the B K scores of a batch are kept, nor is the bank read twice.

Letters: B batch, K negatives an anchor, N training samples; R rows and S entries of a block. A row is an anchor on
one turn round the bank (see `losses.bank.Windows`); there are T turns, T B rows in all.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCKS = 16  # multiplied before a logarithm is taken: each factor is 1/2 at least, and float32 has 2^-24
LOG2_E = math.log2(math.e)


class LossAndGrad(NamedTuple):
    """A loss, the mean over the anchors, and its gradient."""

    loss: Tensor  # a scalar
    positives: Tensor  # (B,), by each positive's score
    rows: Tensor  # (T, B), factor for the weights from `update`


class Objective(Protocol):
    """A loss of one batch against one bank."""

    def reset(self, rows: int, block: Tensor) -> None:
        """Prepare for T B rows, in blocks no larger than `block`."""

    def update(self, scores: Tensor, rows: slice) -> Tensor | None:
        """Turn scores (R, S), -inf where there is no negative, into weights, in place.

        Returns:
            (R,) the factor for earlier weights of these rows, or None for 1.
        """

    def finalize(self, positives: Tensor) -> LossAndGrad:
        """Return the loss with scores (B,) of the positives, and its gradient."""


class BinaryNCE:
    """The binary NCE objective (Tian et al. 2020, Eq. 18 with the critic h of Eq. 19).

    With p = exp(similarity) / Z the critic is h = p / (p + K/N), and the loss is
    −log h(positive) − Σ_k log(1 − h(negative k)). Both logarithms are softplus of the critic's logit x, so nothing
    overflows, and h itself is the weight.

    Logarithms are slow on a CPU. With a = sigmoid(−|x|) = min(h, 1 − h), softplus(x) = max(x, 0) − log(1 − a). The
    factors 1 − a at the same place in several blocks are multiplied first, as 1 − (a + b − ab), of which the
    difference to 1 is kept, so that small terms lose nothing.

    Args:
        log_normalizer: log Z, a scalar tensor.
        num_negatives: K.
        num_samples: N.
    """

    def __init__(self, log_normalizer: Tensor, num_negatives: int, num_samples: int) -> None:
        self.shift = log_normalizer + math.log(num_negatives / num_samples)

    def reset(self, rows: int, block: Tensor) -> None:
        self.num_rows = rows
        self.missing = torch.zeros_like(block)  # to 1, of the product of the factors at each place
        self.spare = torch.empty_like(block)
        self.one, self.total = block.new_ones(()), block.new_zeros(())
        self.blocks = 0

    def update(self, scores: Tensor, rows: slice) -> None:
        height, width = scores.shape
        spare, missing = self.spare[:height, :width], self.missing[:height, :width]
        scores.sub_(self.shift)
        self.total += torch.clamp(scores, min=0, out=spare).sum()
        scores.sigmoid_()
        torch.minimum(torch.sub(self.one, scores, out=spare), scores, out=spare)
        missing.lerp_(self.one.expand_as(spare), spare)
        self.blocks += 1
        if self.blocks % BLOCKS == 0:
            self._add_logarithms()

    def _add_logarithms(self) -> None:
        self.total -= self.missing.neg_().log1p_().sum()
        self.missing.zero_()

    def finalize(self, positives: Tensor) -> LossAndGrad:
        self._add_logarithms()
        count = len(positives)
        loss = (F.softplus(self.shift - positives).sum() + self.total) / count
        slopes = torch.sigmoid(self.shift - positives) / -count
        return LossAndGrad(loss, slopes, positives.new_full((self.num_rows // count, count), 1 / count))


class InfoNCE:
    """−log of the positive's share in the softmax over itself and its negatives.

    The softmax is relative to the largest score of each row so far, so nothing overflows.
    """

    def reset(self, rows: int, block: Tensor) -> None:
        self.largest = block.new_full((rows,), torch.finfo(block.dtype).min / 2)  # less than any score
        self.sums = block.new_zeros(rows)  # of exp(score − largest)

    def update(self, scores: Tensor, rows: slice) -> Tensor:
        largest = torch.maximum(self.largest[rows], scores.amax(dim=1))
        factor = (self.largest[rows] - largest).exp_()
        scores.sub_(largest[:, None]).mul_(LOG2_E).exp2_()  # on a CPU, a third of the time of torch's exp
        self.sums[rows] = self.sums[rows] * factor + scores.sum(dim=1)
        self.largest[rows] = largest
        return factor

    def finalize(self, positives: Tensor) -> LossAndGrad:
        count, largest = len(positives), self.largest.view(-1, len(positives))
        of_rows = largest + self.sums.log().view(largest.shape)
        self.log_sums = torch.logaddexp(positives, of_rows.logsumexp(dim=0))  # (B,), over positive and negatives
        slopes = ((positives - self.log_sums).exp() - 1) / count
        return LossAndGrad((self.log_sums - positives).mean(), slopes, (largest - self.log_sums).exp() / count)
