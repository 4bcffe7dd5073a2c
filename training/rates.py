"""Going on at another learning rate: whose training may, and what of a checkpoint changes."""

from __future__ import annotations

from collections.abc import Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from errors import warn
from settings.merge import flatten
from settings.reading import FREE
from settings.schema import Config
from training.job_name import JobName, get_stage, is_known, list_method_jobs

KEYS = ("optimizer.lr", "feature_lr")  # how the names of learning rates end
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


def has_only_rate_changes(old: Config, new: Config, finished: Sequence[JobName]) -> bool:
    """Return whether two configs differ in learning rates alone, and in none of a finished job.

    What methods share they must still share: a later stage would otherwise be of a first one that is not its own.
    """
    first, second = (flatten(config.resolve()) for config in (old, new))
    changed = {key for key in {*first, *second} - {*FREE} if first.get(key) != second.get(key)}
    if not all(key.endswith(KEYS) for key in changed):
        return False
    both = [method for method in old.methods if method in new.methods]
    if any(list_method_jobs(old, method, 0) != list_method_jobs(new, method, 0) for method in both):
        return False
    known = [job for job in finished if is_known(old, job) and is_known(new, job)]
    return all(get_stage(old, job) == get_stage(new, job) for job in known)
