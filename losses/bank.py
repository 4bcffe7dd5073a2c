"""Banks of features and losses against them, without gathering a single vector.

The plain version gathers each anchor's K vectors, B K D floats and a gradient: 2.1 GB at B 64, K 16,384, D 256 and
dozens of times a step's time here (`python -m benchmarks.step`). Or it multiplies with the whole bank, B N
products of which K of N are wanted. Windows multiply what is wanted and a little more, and gather nothing.

Letters: B batch, N training samples, K negatives an anchor, L entries of a window and E of them no negatives,
D dimension; T turns round the bank, R rows and S entries of a block.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .negatives import Draw
from .objectives import Objective

BLOCK = {"cpu": 2048, "cuda": 2**16}  # entries multiplied at once: few stay in a cache, many are called less often
MARGIN = 16  # columns before a block's scores, 64 bytes, so that rows begin where a processor loads them well


@dataclass(frozen=True)
class Block:
    """Consecutive entries of a bank, and the consecutive rows whose windows they are part of."""

    entries: slice  # S of them
    rows: slice  # R of them
    outside: list[tuple[int, slice]]  # row of the block, and which of its columns lie beyond its window
    left_out: Tensor  # (R, E) columns that are no negatives, counted from `MARGIN` before the first on
    mask: Tensor | None  # (R, S) where either is so: one call of a GPU in place of one a row

    def compute_scores(self, anchors: Tensor, entries: Tensor, room: Tensor) -> Tensor:
        """Return scores (R, S) of anchors and entries, -inf for no negatives."""
        rows = room[: len(anchors)]
        scores = rows[:, MARGIN : MARGIN + len(entries)]
        if entries.dtype == room.dtype:
            torch.mm(anchors, entries.T, out=scores)
        else:
            scores.copy_(anchors @ entries.T)
        if self.mask is not None:
            return scores.masked_fill_(self.mask, -torch.inf)
        rows.scatter_(1, self.left_out, -torch.inf)
        for row, columns in self.outside:
            scores[row, columns] = -torch.inf
        return scores


class Windows:
    """The windows of a draw as blocks of consecutive entries, each with the anchors that need it.

    A window that passes the end of the bank continues at its beginning, where the anchor counts as another row:
    rows are the anchors on each turn, (T, B), ordered by where their windows begin, so every block needs
    consecutive ones. Blocks begin at the same positions in every step: processors prepare for each product size.

    Args:
        draw: of a batch.
        num_entries: N.
        block: S, but for the last one.
        masked: mark what is no negative in a mask, which takes more memory and fewer calls.
    """

    def __init__(self, draw: Draw, num_entries: int, block: int, masked: bool = False) -> None:
        count, last = len(draw.positives), draw.first + (len(draw.positives) - 1) * draw.spacing
        self.draw, self.masked = draw, masked
        self.turns = 1 + (last + draw.length - 1) // num_entries
        turns = range(self.turns - 1, -1, -1)
        self.begins = [
            draw.first + row * draw.spacing - turn * num_entries for turn in turns for row in range(count)
        ]
        begin = draw.first + draw.spacing * torch.arange(count, device=draw.left_out.device)[:, None]
        self.first_entries = torch.cat([begin - turn * num_entries for turn in turns])  # (T B, 1), as `begins`
        self.left_out = draw.left_out.repeat(self.turns, 1) + self.first_entries + MARGIN  # (T B, E)
        sizes = ((first, min(first + block, num_entries)) for first in range(0, num_entries, block))
        self.blocks = [self._make_block(*size) for size in sizes if self._find_rows(*size)]

    def _find_rows(self, first: int, stop: int) -> range:
        """Return the rows whose windows contain positions from `first` to `stop`."""
        return range(bisect_right(self.begins, first - self.draw.length), bisect_left(self.begins, stop))

    def _make_block(self, first: int, stop: int) -> Block:
        rows, size = self._find_rows(first, stop), stop - first
        own = slice(rows.start, rows.stop)
        # those of other blocks go to a column beside this one's
        left_out = (self.left_out[own] - first).clamp_(MARGIN - 1, MARGIN + size)
        if not self.masked:
            return Block(slice(first, stop), own, self._find_outside(rows, first, size), left_out, None)
        place = torch.arange(first - MARGIN, stop + MARGIN, device=left_out.device) - self.first_entries[own]
        mask = ((place < 0) | (place >= self.draw.length)).scatter_(1, left_out, True)[:, MARGIN:-MARGIN]
        return Block(slice(first, stop), own, [], left_out, mask)

    def _find_outside(self, rows: range, first: int, size: int) -> list[tuple[int, slice]]:
        """Return the columns of a block's rows that lie beyond their windows."""
        outside = []
        for row, number in enumerate(rows):
            begin = self.begins[number] - first
            end = begin + self.draw.length
            if begin > 0:
                outside.append((row, slice(0, begin)))
            if end < size:
                outside.append((row, slice(end, size)))
        return outside

    def apply(self, objective: Objective, anchors: Tensor, bank: Tensor) -> Tensor:
        """Give an objective the scores of anchors (B, D) with a bank (N, D).

        Returns:
            (T, B, D), by row: Σ over the window of each entry times its weight from the objective.
        """
        by_row = anchors.to(bank.dtype).repeat(self.turns, 1)
        pulls = anchors.new_zeros(len(by_row), anchors.shape[1])
        height = max(block.rows.stop - block.rows.start for block in self.blocks)
        width = max(block.entries.stop - block.entries.start for block in self.blocks)
        room = anchors.new_empty(height, MARGIN + width + MARGIN)
        objective.reset(len(pulls), room[:, MARGIN:-MARGIN])
        for block in self.blocks:
            entries = bank[block.entries]
            if entries.device.type == "cpu":
                entries.sum()  # brings them into the cache in order, twice as fast as a product does in its own
            scores = block.compute_scores(by_row[block.rows], entries, room)
            factor = objective.update(scores, block.rows)
            if factor is not None:
                pulls[block.rows] *= factor[:, None]
            pulls[block.rows] += scores.to(bank.dtype) @ entries
        return pulls.view(self.turns, len(anchors), -1)


class LossAgainstBank(torch.autograd.Function):
    """An objective's loss of anchors against the drawn entries, its gradient taken in the forward pass.

    So each block of the bank is read once for both, and the bank may be updated before `backward` is called.
    """

    @staticmethod
    def forward(ctx: Any, anchors: Tensor, bank: Tensor, windows: Windows, objective: Objective) -> Tensor:
        own = bank[windows.draw.positives].to(anchors.dtype)  # (B, D)
        with torch.autocast(bank.device.type, enabled=False):  # in the precision of the bank
            pulls = windows.apply(objective, anchors, bank)
            found = objective.finalize((anchors * own).sum(dim=1))
            ctx.save_for_backward(found.positives[:, None] * own + (found.rows[..., None] * pulls).sum(dim=0))
        return found.loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0] * ctx.saved_tensors[0], None, None, None


class MemoryBank(nn.Module):
    """One unit vector a training sample, (N, D), moved towards the newest feature with momentum."""

    features: Tensor

    def __init__(self, num_samples: int, dim: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("features", F.normalize(torch.randn(num_samples, dim), dim=1))
        self._lowered: tuple[Tensor, int] | None = None  # a copy in autocast's precision, of which version

    def make_windows(self, draw: Draw) -> Windows:
        """Return the windows of a draw for this bank."""
        device = self.features.device.type
        return Windows(draw, len(self.features), BLOCK[device], masked=device == "cuda")

    def compute_loss(self, anchors: Tensor, windows: Windows, objective: Objective) -> Tensor:
        """Return an objective's loss of anchors (B, D) with a draw."""
        found: Tensor = LossAgainstBank.apply(anchors, self._get_entries(), windows, objective)
        return found

    def _get_entries(self) -> Tensor:
        """Return the bank, under autocast to bfloat16 a cached copy in it.

        Not in float16, in whose range the slope of one of K negatives would vanish.
        """
        device = self.features.device.type
        if not torch.is_autocast_enabled(device) or torch.get_autocast_dtype(device) == torch.float16:
            return self.features
        if self._lowered is None or self._lowered[1] != self.features._version:
            self._lowered = self.features.to(torch.get_autocast_dtype(device)), self.features._version
        return self._lowered[0]

    @torch.no_grad()
    def update(self, positions: Tensor, features: Tensor) -> None:
        """Move entries towards unit `features` (B, D), and normalise them."""
        self.set(positions, F.normalize(torch.lerp(features, self.features[positions], self.momentum), dim=1))

    @torch.no_grad()
    def set(self, positions: Tensor, features: Tensor) -> None:
        """Set the entries at `positions` (B,) to `features` (B, D)."""
        lowered = self._lowered if self._lowered and self._lowered[1] == self.features._version else None
        self.features[positions] = features
        if lowered is not None:
            lowered[0][positions] = features.to(lowered[0].dtype)
            self._lowered = lowered[0], self.features._version

    @torch.no_grad()
    def rearrange(self, old: Tensor) -> None:
        """Reorder the entries: entry p becomes the one that was at `old`[p], of (N,)."""
        self.features.copy_(self.features[old])
