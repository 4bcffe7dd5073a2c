"""The optimizer and learning-rate schedule of a config, both torch's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer, lr_scheduler

from settings import stages


def make_optimizer(groups: Sequence[dict[str, Any]], settings: stages.Optimizer) -> Optimizer:
    """Return SGD, Adam or AdamW over parameter groups, each with its `lr`.

    With `clip_norm` every step clips gradients first."""
    optimizer = _build_optimizer(list(groups) if settings.decay_norms else _split_decay(groups), settings)
    if settings.clip_norm is not None:
        limit = settings.clip_norm

        def clip(*_: object) -> None:  # after gradients are averaged over processes
            clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], limit)

        optimizer.register_step_pre_hook(clip)
    return optimizer


def _build_optimizer(groups: list[dict[str, Any]], settings: stages.Optimizer) -> Optimizer:
    match settings.name:
        case "adam":
            return torch.optim.Adam(groups, lr=settings.lr, weight_decay=settings.weight_decay)
        case "adamw":
            return torch.optim.AdamW(groups, lr=settings.lr, weight_decay=settings.weight_decay)
    return torch.optim.SGD(
        groups,
        lr=settings.lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
    )


def _split_decay(groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Split off biases and parameters of norms, without weight decay."""
    split = []
    for group in groups:
        flat = [parameter for parameter in group["params"] if parameter.ndim <= 1]
        others = [parameter for parameter in group["params"] if parameter.ndim > 1]
        split += [{**group, "params": others}] if others else []
        split += [{**group, "params": flat, "weight_decay": 0.0}] if flat else []
    return split


def make_schedule(
    optimizer: Optimizer, settings: stages.Optimizer, epochs: int, steps: int
) -> lr_scheduler.LRScheduler:
    """Return the learning-rate schedule for `epochs` x `steps` training steps.

    A warm-up of w steps trains step i at (i + 1) / (w + 1) of the rate; the schedule takes what is left.
    """
    warm = round(settings.warmup * steps)
    if warm == 0:
        return _build_schedule(optimizer, settings, epochs * steps, steps, 0)
    rising = lr_scheduler.LinearLR(optimizer, start_factor=1 / (warm + 1), total_iters=warm)
    rest = _build_schedule(optimizer, settings, epochs * steps - warm, steps, warm)
    return lr_scheduler.SequentialLR(optimizer, [rising, rest], [warm])


def _build_schedule(
    optimizer: Optimizer, settings: stages.Optimizer, total: int, steps: int, warm: int
) -> lr_scheduler.LRScheduler:
    """Return the schedule of the `total` steps after a warm-up of `warm`."""
    match settings.schedule:
        case "exponential":
            return lr_scheduler.ExponentialLR(optimizer, settings.gamma ** (1 / steps))
        case "cosine":
            return lr_scheduler.CosineAnnealingLR(optimizer, total)
        case "multistep":
            shares = [one * (warm + total) if one <= 1 else one * steps for one in settings.milestones]
            milestones = [max(round(step) - warm, 0) for step in shares]
            return lr_scheduler.MultiStepLR(optimizer, milestones, settings.gamma)
        case "onecycle":
            rates = [group["lr"] for group in optimizer.param_groups]
            return lr_scheduler.OneCycleLR(optimizer, rates, total_steps=total, cycle_momentum=False)
    return lr_scheduler.ConstantLR(optimizer, factor=1.0)
