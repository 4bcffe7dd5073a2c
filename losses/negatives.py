"""Sampling of positives and negatives for a contrastive loss.

Letters: B batch, N training samples, K negatives an anchor, L entries of a window, m samples of an anchor's class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Mode = Literal["exact", "relax", "instance"]


@dataclass(frozen=True)
class Draw:
    """Positives and negatives of a batch, as positions in a sampler's circular order of the N samples.

    Anchor i's window is the L entries from position `first` + i · `spacing` on. Of them `left_out` are no
    negatives, the other K are.
    """

    positives: Tensor  # (B,)
    first: int
    spacing: int
    length: int  # L
    left_out: Tensor  # (B, L - K) columns of each window

    def select_part(self, first: int, step: int) -> Draw:
        """Return the draw of every `step`-th anchor from `first` on."""
        own = slice(first, None, step)
        start = self.first + first * self.spacing
        return Draw(self.positives[own], start, self.spacing * step, self.length, self.left_out[own])


class NegativeSampler(nn.Module):
    """Draws, for each anchor, one positive and K negatives, as windows of one random order of all samples.

    An anchor takes the next K entries from its own place in the order, skipping those of its class (in mode
    "instance": itself). Order and places are random, so the K negatives are a uniform draw without replacement
    (where K exceeds the candidates, the window goes round again). Windows of one batch are evenly spaced, and
    neighbours share most of theirs, which `losses.bank` uses. `reshuffle` before every epoch to part neighbours.

    Args:
        labels: (N,) class of each training sample.
        num_negatives: K.
        mode: "exact", "relax" or "instance" (negatives: all other samples, whatever their class).
        shared: one place for all anchors of a batch, which then share their negatives but for their own classes.

    Raises:
        ValueError: no sample is left to be a negative.
    """

    order: Tensor  # (N,) the samples in a random order
    group: Tensor  # (N,) of each sample: members of one are no negatives of each other
    size: Tensor  # of each group
    start: Tensor  # of each group in a list of all members by group
    position: Tensor  # (N,) of each sample in the order
    members: Tensor  # (N,) positions, by group and then in order
    member_keys: Tensor  # (N,) `members` as one sorted list, by an offset a group
    other_keys: Tensor  # (N,) the same of how many others come before each member

    def __init__(self, labels: Tensor, num_negatives: int, mode: Mode, shared: bool = False) -> None:
        super().__init__()
        groups = torch.arange(len(labels), device=labels.device) if mode == "instance" else labels
        _, groups, sizes = groups.unique(return_inverse=True, return_counts=True)
        if len(sizes) < 2:
            raise ValueError("all samples are of one class, so there are no negatives: use mode instance")
        self.num_samples = len(labels)
        self.num_negatives = num_negatives
        self.mode = mode
        self.shared = shared
        self.register_buffer("order", torch.randperm(len(labels)).to(labels.device))
        self._register_derived("group", groups)
        self._register_derived("size", sizes)
        self._register_derived("start", sizes.cumsum(0) - sizes)
        self._build_lists()
        self.register_load_state_dict_post_hook(_restore_lists)  # type: ignore[no-untyped-call]  # torch gives no types

    def _register_derived(self, name: str, tensor: Tensor) -> None:
        """Register a tensor that moves with the module and is not saved with it."""
        self.register_buffer(name, tensor, persistent=False)

    def reshuffle(self) -> Tensor:
        """Shuffle the samples; return the old position of each entry (N,)."""
        old = self.position.clone()
        self.order.copy_(torch.randperm(self.num_samples))  # drawn on the CPU, as `first` is
        self._build_lists()
        return old[self.order]

    def _build_lists(self) -> None:
        """Build the lists of members and others by group."""
        places = torch.arange(self.num_samples, device=self.order.device)
        self._register_derived("position", torch.empty_like(self.order).scatter_(0, self.order, places))
        by_place = self.group[self.order]
        self._register_derived("members", by_place.argsort(stable=True))
        of_member = by_place[self.members]
        offset = of_member * (self.num_samples + 1)  # makes one sorted list of the groups' lists
        self._register_derived("member_keys", self.members + offset)
        self._register_derived("other_keys", self.members - (places - self.start[of_member]) + offset)
        _, skipped = self._count_skipped(of_member, self.members)  # most, where a window begins at a member
        self.length = self.num_negatives + int(skipped.max())

    def _count_skipped(self, group: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """Count a group's members before `place`, and in the window from it."""
        start, size = self.start[group], self.size[group]
        others = self.num_samples - size
        before = torch.searchsorted(self.member_keys, group * (self.num_samples + 1) + place) - start
        rounds, rest = _split_rounds(place - before + self.num_negatives, others)
        until = rounds * size + torch.searchsorted(self.other_keys, group * (self.num_samples + 1) + rest) - start
        return before, until - before

    def draw(self, indices: Tensor) -> Draw:
        """Draw for the samples `indices` (B,) by torch's global CPU generator."""
        first = int(torch.randint(self.num_samples, ()))  # on the CPU, so that no GPU is waited for
        spacing = 0 if self.shared else self.num_samples // len(indices)
        row = torch.arange(len(indices), device=indices.device)
        place = (first + row * spacing) % self.num_samples
        group = self.group[indices]
        before, skipped = self._count_skipped(group, place)
        column = torch.arange(self.length - self.num_negatives, device=indices.device)  # of `left_out`
        rounds, member = _split_rounds(before[:, None] + column, self.size[group][:, None])
        own = self.members[self.start[group][:, None] + member] + rounds * self.num_samples - place[:, None]
        left_out = torch.where(column < skipped[:, None], own, self.num_negatives + column)
        return Draw(self._pick_positives(indices, group), first, spacing, self.length, left_out)

    def _pick_positives(self, indices: Tensor, group: Tensor) -> Tensor:  # (B,)
        if self.mode != "relax":
            return self.position[indices]
        shares = torch.rand(len(indices), dtype=torch.float64)  # on the CPU, where all processes draw alike
        within = shares.to(indices.device, non_blocking=True) * self.size[group]
        return self.members[self.start[group] + within.long()]


def _restore_lists(sampler: NegativeSampler, _: object) -> None:
    sampler._build_lists()


def _split_rounds(numbers: Tensor, by: Tensor) -> tuple[Tensor, Tensor]:
    return numbers.div(by, rounding_mode="floor"), numbers.remainder(by)
