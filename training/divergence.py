"""Detect and report divergence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn

from errors import UserError
from training.progress import EpochProgress
from training.stepping import Stepper

SMALLEST_SCALE = 2.0**-10  # it starts at 2^16, halves at a step that overflows, and doubles after 2,000 others


@dataclass(frozen=True)
class TrainingLocation:
    """Where a training is, for the message."""

    job: Path  # its folder
    rate_key: str  # of the config
    epoch: int  # from 1
    rate: float  # learning rate as the epoch began
    steps: int  # an epoch
    low_precision: bool

    def suggest_fix(self, at_first_step: bool) -> str:
        """Return what to try, the likeliest first."""
        lower = f"go on with --resume --set {self.rate_key}=VALUE, a smaller one"
        if self.low_precision:
            return f"start over with --set precision=float32 and --fresh, or {lower}"
        if at_first_step:  # before any update the learning rate has no effect
            return "no step was made yet: look at the given weights, the temperatures and the weights of the terms"
        return lower


class DivergedError(Exception):
    """What is not finite, and where it was found first; `report_divergence` turns it into a `UserError`."""

    def __init__(self, what: str, step: int | None = None, rate: float | None = None) -> None:
        super().__init__(what)
        self.what, self.step, self.rate = what, step, rate


@contextmanager
def report_divergence(place: TrainingLocation, part: EpochProgress) -> Iterator[None]:
    """Turn `DivergedError` into one line.

    part: of the current epoch.

    Raises:
        UserError: names job, epoch, step, term and learning rate, and what to do.
    """
    try:
        yield
    except DivergedError as error:
        where = "at the end" if error.step is None else f"step {error.step} of {place.steps}"
        rate = place.rate if error.rate is None else error.rate
        before = f"epoch {place.epoch - 1} is kept" if place.epoch > 1 else "nothing is kept of it yet"
        kept = f"its step {part.kept} is kept" if part.kept else before
        raise UserError(
            f"{place.job.name} diverged in epoch {place.epoch}, {where}: {error.what} "
            f"at a learning rate of {rate:g}; {kept} in {place.job}: "
            f"{place.suggest_fix(place.epoch == error.step == 1)}"
        ) from None


def refuse_divergence(
    recent: Sequence[tuple[float, Mapping[str, Tensor]]],
    steps: int,
    gather: Callable[[Tensor], Tensor] = lambda tensor: tensor,
) -> None:
    """Raise `DivergedError` for the first of the last steps with a term that is not finite.

    Args:
        recent: learning rate and terms, scalars on the device, of each step.
        steps: of this epoch, including the last of them.
        gather: joins the terms of all processes, so that all of them stop.
    """
    if not recent:
        return
    names = list(recent[0][1])
    values = torch.stack([torch.stack([terms[name].double() for name in names]) for _, terms in recent])
    values = gather(values[None])  # (processes, steps, terms)
    if values.isfinite().all():  # one synchronisation with the device
        return
    position = int((~values.isfinite()).any(dim=2).any(dim=0).int().argmax())
    rows = [dict(zip(names, row, strict=True)) for row in values[:, position].tolist()]
    bad = {name: value for row in rows for name, value in row.items() if not math.isfinite(value)}
    name = next((name for name in bad if name != "loss"), "loss")  # the loss is the sum of the terms
    raise DivergedError(f"{name} became {bad[name]}", steps - len(recent) + position + 1, recent[position][0])


def refuse_lost_scale(stepper: Stepper, steps: int) -> None:
    """Raise `DivergedError` where all steps overflow float16; some always do.

    steps: of this epoch so far.
    """
    scale = stepper.scaler.get_scale()
    if scale < SMALLEST_SCALE:
        what = f"gradients overflow float16 even with the loss scaled by {scale:.1e}"
        raise DivergedError(what, steps, stepper.rate)


def refuse_infinite(measures: Mapping[str, float], objective: nn.Module, stepper: Stepper) -> None:
    """Raise `DivergedError` for a measure, weight, buffer, average or optimizer state that is not finite.

    The terms of an epoch's last step may be finite although its update diverged.
    """
    for name, value in measures.items():
        if not math.isfinite(value):
            raise DivergedError(f"{name} became {value}")
    states = stepper.optimizer.state.values()
    averages = {} if stepper.average is None else stepper.average.averaged
    tensors = chain(
        ((_shorten(name), value) for name, value in objective.state_dict().items()),
        ((f"the average of {_shorten(name)}", value) for name, value in averages.items()),
        ((f"the optimizer's {name}", one) for state in states for name, one in state.items()),
    )
    for name, value in tensors:
        if isinstance(value, Tensor) and value.is_floating_point() and not torch.isfinite(value).all():
            raise DivergedError(f"{name} is no longer finite")


def _shorten(name: str) -> str:
    return name.removeprefix("model.")
