"""Banks of features and losses against them, without gathering a single vector.

The plain version gathers each anchor's K vectors, B K D floats and a gradient: 2.1 GB at B 64, K 16,384, D 256 and
34 times a step's time here (`python -m benchmarks.crd_step`). Or it multiplies with the whole bank, B N products
of which K of N are wanted. Windows multiply what is wanted and a little more, and gather nothing.

Letters: B batch, N training samples, K negatives an anchor, L entries of a window, D dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from losses.negatives import Draw

LossOf = Callable[[Tensor, Tensor], Tensor]  # of positives (B,) and negatives (B, L), none where -inf: (B,)


@dataclass(frozen=True)
class Sizes:
    """How much is done at once."""

    block: int  # entries multiplied: few to skip more, many to call less often
    chunk: int  # scores that a loss is taken of: few stay in a CPU's cache, and their memory is used again


SIZES = {"cpu": Sizes(block=2048, chunk=2**18), "cuda": Sizes(block=2**15, chunk=2**27)}


class Windows:
    """Scores of each anchor with the entries of its window, by products of anchors with blocks of the bank.

    A block of consecutive entries lies in the windows of consecutive anchors, so each block is multiplied with the
    few anchors that need it, K/N of them and a little more. The product is written straight to where the rows of
    the result begin at their own windows, with room at both ends for what a block has beyond them.
    """

    def __init__(self, draw: Draw, bank: Tensor, memory: Tensor | None = None) -> None:
        self.draw, self.bank = draw, bank
        self.room = min(SIZES[bank.device.type].block, len(bank))
        self.width = draw.length + 2 * self.room
        size = len(draw.positives) * self.width
        if memory is None or memory.dtype != bank.dtype or len(memory) != size:
            memory = bank.new_empty(size)
        self.scores = memory

    def score(self, anchors: Tensor) -> None:
        """Fill `negatives` with the inner products of anchors (B, D) and entries."""
        for rows, entries, block in self._blocks():
            torch.mm(anchors[rows], self.bank[entries].T, out=block)

    def _blocks(self) -> Iterator[tuple[slice, slice, Tensor]]:
        """Rows of anchors, positions in the bank, and where in the scores their product belongs.

        Blocks begin at the same positions in every step, since a processor prepares anew for each size of product.
        """
        count, spacing, length = len(self.draw.positives), self.draw.spacing, self.draw.length
        place = self.draw.first % len(self.bank)
        begin = -(place % self.room)  # entries beyond the first anchor's place
        position = place + begin
        while begin < (count - 1) * spacing + length:
            size = min(self.room, len(self.bank) - position)
            first, stop = 0, count  # rows whose windows the block is part of
            if spacing:
                first = max(0, -((length - 1 - begin) // spacing))
                stop = min(count, (begin + size - 1) // spacing + 1)
            if first < stop:
                step = self.width - spacing  # from row to row, as each window begins `spacing` later
                start = self.room + first * step + begin
                # where windows lie so far apart that the step is negative, a block is part of one at most
                block = self.scores.as_strided((stop - first, size), (max(step, 0), 1), start)
                yield slice(first, stop), slice(position, position + size), block
            begin += size
            position = (position + size) % len(self.bank)

    @property
    def negatives(self) -> Tensor:
        """(B, L), a view."""
        return self.scores.view(-1, self.width)[:, self.room : self.room + self.draw.length]

    def pull(self) -> Tensor:
        """Σ over the window of what stands in `negatives`, slopes by now, times entry: (B, D)."""
        rows = self.scores.view(-1, self.width)
        rows[:, : self.room] = 0
        rows[:, self.room + self.draw.length :] = 0
        gradient = self.bank.new_zeros(len(rows), self.bank.shape[1], dtype=torch.float32)
        with torch.autocast(self.bank.device.type, enabled=False):  # in the precision of the bank
            for anchors, entries, block in self._blocks():
                gradient[anchors] += block @ self.bank[entries]
        return gradient


class LossAgainstBank(torch.autograd.Function):
    """Mean of a loss of the inner products of anchors and drawn entries, its gradient taken in the forward pass.

    So nothing of size (B, L) outlives the forward pass, and the bank may be updated before `backward` is called.
    """

    @staticmethod
    def forward(ctx: Any, anchors: Tensor, windows: Windows, loss_of: LossOf) -> Tensor:
        bank, draw = windows.bank, windows.draw
        windows.score(anchors.to(bank.dtype))
        own = bank[draw.positives].to(anchors.dtype)  # (B, D)
        positives = (anchors * own).sum(dim=1)  # (B,)
        losses, slopes = torch.empty_like(positives), torch.empty_like(positives)
        rows = max(1, SIZES[anchors.device.type].chunk // draw.length)
        parts = (positives, windows.negatives, draw.left_out, losses, slopes)
        for positive, negative, left_out, loss, slope in zip(*(part.split(rows) for part in parts), strict=True):
            scores = negative.to(anchors.dtype).scatter_(1, left_out, -torch.inf).requires_grad_()
            with torch.enable_grad():
                leaf = positive.detach().requires_grad_()
                found = loss_of(leaf, scores)
                slope_of_leaf, slopes_of_scores = torch.autograd.grad(found.sum() / len(anchors), (leaf, scores))
            loss.copy_(found.detach())
            slope.copy_(slope_of_leaf)
            negative.copy_(slopes_of_scores)
        ctx.save_for_backward(slopes[:, None] * own + windows.pull())
        return losses.mean()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0] * ctx.saved_tensors[0], None, None


class MemoryBank(nn.Module):
    """One unit vector a training sample, (N, D), moved towards the newest feature with momentum."""

    features: Tensor

    def __init__(self, num_samples: int, dim: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("features", F.normalize(torch.randn(num_samples, dim), dim=1))
        self._lowered: tuple[Tensor, int] | None = None  # a copy in autocast's precision, of which version
        self._memory: Tensor | None = None  # for a step's scores, since fresh memory costs as much as a product

    def loss(self, anchors: Tensor, draw: Draw, loss_of: LossOf) -> Tensor:
        """Mean of `loss_of` the inner products of anchors (B, D) with positives and windows of a draw."""
        windows = Windows(draw, self._entries(), self._memory)
        self._memory = windows.scores
        found: Tensor = LossAgainstBank.apply(anchors, windows, loss_of)
        return found

    def _entries(self) -> Tensor:
        """The bank; under autocast to bfloat16 a copy in it, kept since casting costs as much as a product.

        Not in float16: the slope of one of K negatives would vanish in its range, which no scaling helps.
        """
        device = self.features.device.type
        if not torch.is_autocast_enabled(device) or torch.get_autocast_dtype(device) == torch.float16:
            return self.features
        if self._lowered is None or self._lowered[1] != self.features._version:
            lowered = self.features.to(torch.get_autocast_dtype(device))
            self._lowered = lowered.T.contiguous().T, self.features._version  # by columns, which multiplies faster
        return self._lowered[0]

    @torch.no_grad()
    def update(self, positions: Tensor, features: Tensor) -> None:
        """Entry p becomes the normalised momentum · old + (1 − momentum) · new, for unit `features` (B, D)."""
        self.set(positions, F.normalize(torch.lerp(features, self.features[positions], self.momentum), dim=1))

    @torch.no_grad()
    def set(self, positions: Tensor, features: Tensor) -> None:
        """Entry p becomes its row of `features` (B, D)."""
        lowered = self._lowered if self._lowered and self._lowered[1] == self.features._version else None
        self.features[positions] = features
        if lowered is not None:
            lowered[0][positions] = features.to(lowered[0].dtype)
            self._lowered = lowered[0], self.features._version

    @torch.no_grad()
    def rearrange(self, old: Tensor) -> None:
        """Entry p becomes the one that was at `old`[p], for positions `old` (N,)."""
        self.features.copy_(self.features[old])
