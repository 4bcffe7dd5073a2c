"""Going on at another learning rate: whose training may, and what of a checkpoint changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from configs.reading import FREE
from configs.schema import Config
from errors import warn
from training.job_name import TEACHER, JobName, config_of, needs

KEYS = ("optimizer.lr", "kd.feature_lr")  # how the names of learning rates end
RATES = ("lr", "initial_lr", "max_lr", "min_lr")  # of a parameter group, all in proportion to the config's


def rescale_rates(optimizer: Optimizer, schedule: LRScheduler, wanted: Sequence[float]) -> None:
    """Have a restored schedule run at other rates from here on, as far along as it was; the same change nothing.

    wanted: initial learning rate of each parameter group.
    """
    for position, (group, initial) in enumerate(zip(optimizer.param_groups, wanted, strict=True)):
        if group["initial_lr"] == initial:
            continue
        factor = initial / group["initial_lr"]
        warn(f"going on at {factor:.4g} times the learning rate of before, {group['lr'] * factor:.4g} now")
        for name in RATES:
            if name in group:
                group[name] *= factor
        group["initial_lr"] = initial
        schedule._last_lr[position] = group["lr"]
        for one in getattr(schedule, "_schedulers", [schedule]):  # a warm-up, and what comes behind it
            one.base_lrs[position] = initial


def only_rates_of(old: Config, new: Config, finished: Sequence[JobName], present: Sequence[JobName]) -> bool:
    """Whether two configs differ in learning rates alone, and in none that a finished job was trained with."""
    first, second = (_leaves(config.model_dump(mode="json")) for config in (old, new))
    changed = {key for key in {*first, *second} - {*FREE} if first.get(key) != second.get(key)}
    if not all(key.endswith(KEYS) for key in changed):
        return False
    same_sources = all(needs(old, job) == needs(new, job) for job in present)
    return same_sources and all(_rates(old, job) == _rates(new, job) for job in finished)


def _rates(config: Config, job: JobName) -> tuple[float, ...]:
    """The learning rates that a job is trained with."""
    if job == TEACHER:
        return (config.teacher.optimizer.lr,)
    if job.kind != "baseline" and job.of and job.of not in config.variants:
        return ()  # a folder of nobody's
    own = config_of(config, job)
    if job.kind == "stage2":
        return own.kd.optimizer.lr, own.kd.feature_lr
    return (own.crd.optimizer.lr if job.kind == "stage1" else own.baselines.optimizer.lr,)


def _leaves(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values of nested mappings by dotted keys; an empty mapping is none."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found
