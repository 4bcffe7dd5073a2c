"""Banks of features and losses against them, without gathering a single vector.

Letters: B batch, N training samples, K negatives an anchor, L entries of a window, D dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from losses.negatives import Draw

BLOCK = {"cpu": 2048, "cuda": 32768}  # entries multiplied at once: small to skip more, large to be called less

LossOf = Callable[[Tensor, Tensor], Tensor]  # of the positives (B,) and negatives (B, L), those left out at -inf


class Windows:
    """Scores of each anchor with the entries of its window, by products of anchors with blocks of the bank.

    A block of consecutive entries lies in the windows of consecutive anchors, so each block is multiplied with the
    few anchors that need it, K/N of them and a little more. The product is written straight to where the rows of
    the result begin at their own windows, with room at both ends for what a block has beyond them.
    """

    def __init__(self, draw: Draw, anchors: Tensor, bank: Tensor) -> None:
        self.draw, self.anchors, self.bank = draw, anchors, bank
        self.room = BLOCK[anchors.device.type if anchors.device.type in BLOCK else "cuda"]
        self.room = min(self.room, len(bank))
        self.width = draw.length + 2 * self.room
        self.scores = anchors.new_empty(len(anchors) * self.width)
        for rows, entries, block in self._blocks():
            torch.mm(anchors[rows], bank[entries].T, out=block)

    def _blocks(self) -> Iterator[tuple[slice, slice, Tensor]]:
        """Rows of anchors, positions in the bank, and where in the scores their product belongs."""
        count, spacing, length = len(self.anchors), self.draw.spacing, self.draw.length
        done, end = 0, (count - 1) * spacing + length  # entries beyond the first anchor's place
        while done < end:
            position = (self.draw.first + done) % len(self.bank)
            size = min(self.room - position % self.room, len(self.bank) - position, end - done)
            rows = slice(0, count)
            if spacing:
                rows = slice(
                    max(0, -((length - 1 - done) // spacing)), min(count, (done + size - 1) // spacing + 1)
                )
            shape, strides = (rows.stop - rows.start, size), (self.width - spacing, 1)
            start = self.room + rows.start * (self.width - spacing) + done
            yield rows, slice(position, position + size), self.scores.as_strided(shape, strides, start)
            done += size

    @property
    def negatives(self) -> Tensor:
        """(B, L), a view."""
        return self.scores.view(-1, self.width)[:, self.room : self.room + self.draw.length]

    def pull(self, slopes: Tensor) -> Tensor:
        """Σ over the window of slope (B, L) times entry, (B, D). Overwrites the scores."""
        rows = self.scores.view(-1, self.width)
        rows[:, : self.room] = 0
        rows[:, self.room + self.draw.length :] = 0
        self.negatives.copy_(slopes)
        gradient = torch.zeros_like(self.anchors, dtype=torch.float32)
        for anchors, entries, block in self._blocks():
            gradient[anchors] += block @ self.bank[entries]
        return gradient


class LossAgainstBank(torch.autograd.Function):
    """A loss of the inner products between anchors and drawn bank entries, its gradient taken in the forward pass.

    So nothing of size (B, L) outlives the forward pass, and the bank may be updated before `backward` is called.
    """

    @staticmethod
    def forward(ctx: Any, anchors: Tensor, bank: Tensor, draw: Draw, loss_of: LossOf) -> Tensor:
        windows = Windows(draw, anchors.to(bank.dtype), bank)
        own = bank[draw.positives].to(anchors.dtype)  # (B, D)
        with torch.enable_grad():
            positives = (anchors.detach() * own).sum(dim=1).requires_grad_()  # (B,)
            negatives = windows.negatives.to(anchors.dtype).scatter_(1, draw.left_out, -torch.inf).requires_grad_()
            loss = loss_of(positives, negatives)
        slopes = torch.autograd.grad(loss, (positives, negatives))
        ctx.save_for_backward(slopes[0][:, None] * own + windows.pull(slopes[1]))
        return loss.detach()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        return grads[0] * ctx.saved_tensors[0], None, None, None


class MemoryBank(nn.Module):
    """One unit vector a training sample, (N, D), moved towards the newest feature with momentum."""

    features: Tensor

    def __init__(self, num_samples: int, dim: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("features", F.normalize(torch.randn(num_samples, dim), dim=1))
        self._lowered: tuple[Tensor, int] | None = None  # a copy in autocast's precision, of which version

    def loss(self, anchors: Tensor, draw: Draw, loss_of: LossOf) -> Tensor:
        """`loss_of` the inner products of anchors (B, D) with the positives (B,) and windows (B, L) of a draw."""
        return LossAgainstBank.apply(anchors, self._entries(), draw, loss_of)

    def _entries(self) -> Tensor:
        """The bank; under autocast a copy in its precision, kept since casting costs as much as a product."""
        device = self.features.device.type
        if not torch.is_autocast_enabled(device):
            return self.features
        if self._lowered is None or self._lowered[1] != self.features._version:
            self._lowered = self.features.to(torch.get_autocast_dtype(device)), self.features._version
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


class FeatureQueue(nn.Module):
    """The newest Q features of any samples and their classes, oldest replaced first (He et al., MoCo, CVPR 2020).

    What it holds does not grow with the data set. An anchor's positive is the other network's own feature of the
    same sample, its negatives are all entries of other classes (Q is K of the loss). Entries start as random
    vectors of no class.
    """

    features: Tensor
    classes: Tensor

    def __init__(self, length: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("features", F.normalize(torch.randn(length, dim), dim=1))  # (Q, D)
        self.register_buffer("classes", torch.full((length,), -1))
        self.oldest = 0

    def loss(self, anchors: Tensor, positives: Tensor, classes: Tensor, loss_of: LossOf) -> Tensor:
        """`loss_of` the inner products of anchors (B, D) with `positives` (B, D) and with all entries.

        Those of an anchor's own class, by `classes` (B,), are at -inf.
        """
        scores = anchors @ self.features.T  # (B, Q)
        negatives = scores.float().masked_fill(classes[:, None] == self.classes, -torch.inf)
        return loss_of((anchors * positives).sum(dim=1).float(), negatives)

    @torch.no_grad()
    def push(self, features: Tensor, classes: Tensor) -> None:
        """Replace the oldest entries by `features` (B, D) of `classes` (B,)."""
        places = (self.oldest + torch.arange(len(features), device=features.device)) % len(self.features)
        self.features[places], self.classes[places] = features, classes
        self.oldest = (self.oldest + len(features)) % len(self.features)

    def get_extra_state(self) -> dict[str, Any]:
        return {"oldest": self.oldest}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.oldest = state["oldest"]
