"""Training steps: accumulation, loss scaling for float16, schedule and average.

A *step* is one of the optimizer and takes `accumulate` batches; an epoch's last takes what batches are left.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from models.machine import Machine
from settings import stages
from training import distributed
from training.ema import Average
from training.optimizers import make_optimizer, make_schedule
from training.rates import rescale_rates


@dataclass
class Stepper:
    """Optimizer, schedule, loss scale and average of a training.

    A step whose gradients overflow float16 is left out, which is usual: the loss is scaled by half as much from
    then on, and neither the schedule nor the average moves on.
    """

    optimizer: Optimizer
    schedule: LRScheduler
    scaler: GradScaler = field(default_factory=lambda: GradScaler("cpu", enabled=False))  # for float16
    average: Average | None = None
    batches: int = 1  # an epoch
    accumulate: int = 1  # batches a step

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return count_steps(self.batches, self.accumulate)

    def count_batches(self, step: int) -> int:
        """Return the batches of an epoch's step, counted from 0."""
        return min(self.accumulate, self.batches - step * self.accumulate)

    def step(self) -> None:
        """Step along the gradients."""
        before = self.scaler.get_scale()
        self.scaler.unscale_(self.optimizer)  # before gradients are clipped
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.get_scale() < before:
            return
        self.schedule.step()
        if self.average is not None:
            self.average.update()

    def hold_average(self) -> AbstractContextManager[None]:
        """Have the objective hold the average of its weights, where there is one."""
        return nullcontext() if self.average is None else self.average.hold()

    @property
    def rate(self) -> float:
        """Learning rate of the first group of parameters."""
        return float(self.optimizer.param_groups[0]["lr"])

    def state(self) -> dict[str, Any]:
        return {
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave, at this optimizer's learning rates.

        Raises:
            KeyError, RuntimeError, ValueError, TypeError, AttributeError, IndexError: it does not fit.
        """
        wanted: Sequence[float] = [group["initial_lr"] for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        rescale_rates(self.optimizer, self.schedule, wanted)
        self.scaler.load_state_dict(state["scaler"])
        if not 0 < float(self.scaler.get_scale()) < math.inf:
            raise ValueError(f"a loss scaled by {self.scaler.get_scale()}")
        if self.average is not None:
            self.average.load_state_dict(state["average"])


def count_steps(batches: int, accumulate: int) -> int:
    """Return the number of steps of so many batches."""
    return -(-batches // accumulate)


def make_stepper(
    objective: nn.Module,
    groups: Sequence[dict[str, Any]],
    settings: stages.Optimizer,
    epochs: int,
    batches: int,
    machine: Machine,
) -> Stepper:
    """Return the stepper that the config's section `optimizer` describes.

    Args:
        objective: whose weights are averaged with `settings.ema`.
        groups: of its parameters, each with its `lr`.
        batches: an epoch.
    """
    optimizer = make_optimizer(groups, settings)
    schedule = make_schedule(optimizer, settings, epochs, count_steps(batches, settings.accumulate))
    scaler = GradScaler(machine.device.type, enabled=machine.float16)
    average = None if settings.ema is None else Average(objective, settings.ema)
    return Stepper(optimizer, schedule, scaler, average, batches, settings.accumulate)


def train_step(
    objective: nn.Module, batches: Iterable[Any], stepper: Stepper, machine: Machine, count: int = 1
) -> dict[str, Tensor]:
    """Step down the mean over `count` batches of the terms' weighted sum.

    Returns:
        Means of the sum, called loss, and of all terms."""
    sums: dict[str, Tensor] = {}
    stepper.optimizer.zero_grad(set_to_none=True)
    for number, batch in enumerate(batches, start=1):
        with distributed.sync_gradients(objective, is_last=number == count):
            with machine.autocast():
                terms = objective(batch)
            loss = torch.stack([term.weight * term.value for term in terms.values() if term.weight]).sum()
            stepper.scaler.scale(loss / count).backward()
        values = {"loss": loss.detach(), **{name: term.value.detach() for name, term in terms.items()}}
        sums = {name: sums[name] + value if sums else value for name, value in values.items()}
    stepper.step()
    return {name: total / count for name, total in sums.items()}
