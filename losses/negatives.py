"""Which samples an anchor of a contrastive loss is drawn against.

Letters: B batch, N training samples, K negatives an anchor, M samples an anchor may draw.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Mode = Literal["exact", "relax", "instance"]


class NegativeSampler:
    """Draws, for each anchor, one positive and K negatives as positions in the training set.

    The samples stand sorted by class, so what an anchor may not draw is one run of that order and the other M
    are consecutive (cyclically). A batch shares one random permutation of range(M), an anchor takes a window of
    K entries of it at an offset of its own: uniform, without replacement while K <= M (beyond, the window
    wraps round), and no draw is ever rejected. Where classes differ in size, so does M: entries beyond an
    anchor's own M are sent through the permutation again until they fall inside (cycle walking), which is
    again a uniform permutation of its M.

    Args:
        labels: (N,) class of each training sample.
        num_negatives: K.
        mode: "exact", "relax" or "instance" (negatives: all other samples, whatever their class).

    Raises:
        ValueError: no sample is left to be a negative.
    """

    def __init__(self, labels: Tensor, num_negatives: int, mode: Mode) -> None:
        groups = torch.arange(len(labels)) if mode == "instance" else labels.cpu()
        _, groups, sizes = groups.unique(return_inverse=True, return_counts=True)
        if len(sizes) < 2:
            raise ValueError("all samples are of one class, so there are no negatives: use mode instance")
        starts = sizes.cumsum(0) - sizes
        order = groups.argsort(stable=True)
        device = labels.device
        self.order = order.repeat(2).int().to(device)  # (2N,) samples sorted by group, twice round
        self.start = starts[groups].int().to(device)  # (N,) where a sample's group starts in that order
        self.size = sizes[groups].int().to(device)  # (N,) and how many it has
        self.num_samples = len(labels)
        self.num_negatives = num_negatives
        self.mode = mode
        self.largest_rest = len(labels) - int(sizes.min())
        self.equal_sizes = bool((sizes == sizes[0]).all())

    def __call__(self, indices: Tensor) -> Tensor:
        """Draw for the samples `indices` (B,) with torch's global generator: (B, K + 1), positive first."""
        device = indices.device
        start, size = self.start[indices][:, None], self.size[indices][:, None]
        rest = self.num_samples - size  # (B, 1), M of each anchor
        permutation = torch.randperm(self.largest_rest, device=device, dtype=torch.int32)
        offset = (torch.rand(rest.shape, device=device, dtype=torch.float64) * rest).int()
        window = (offset + torch.arange(self.num_negatives, device=device, dtype=torch.int32)) % rest  # (B, K)
        drawn = _look_up(permutation, window)
        while not self.equal_sizes and (outside := drawn >= rest).any():
            drawn = torch.where(outside, _look_up(permutation, drawn), drawn)
        positions = torch.empty(len(indices), self.num_negatives + 1, dtype=torch.int64, device=device)
        positions[:, :1] = self._positives(indices, start, size)
        positions[:, 1:] = _look_up(self.order, drawn + (start + size))
        return positions

    def _positives(self, indices: Tensor, start: Tensor, size: Tensor) -> Tensor:  # (B, 1)
        if self.mode != "relax":
            return indices[:, None]
        within = (torch.rand(size.shape, device=size.device, dtype=torch.float64) * size).int()
        return _look_up(self.order, start + within)


def _look_up(table: Tensor, positions: Tensor) -> Tensor:
    """`table[positions]`, by the faster way for many 32-bit positions."""
    return table.index_select(0, positions.reshape(-1)).view(positions.shape)
