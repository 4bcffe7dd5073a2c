"""A training that diverged: found before its epoch counts, told with its place and a mend that fits the cause."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from errors import UserError
from training.progress import Part
from training.stepping import Stepper

SMALLEST_SCALE = 2.0**-10  # it starts at 2^16, halves at a step that overflows, and doubles after 2,000 others


@dataclass(frozen=True)
class Place:
    """Where a training is, for the message."""

    job: Path  # its folder
    rate_key: str  # of the config
    epoch: int  # from 1
    rate: float  # as the epoch began
    steps: int  # an epoch
    low_precision: bool

    def advice(self, first_step: bool) -> str:
        """Return what is worth trying, the likeliest first."""
        lower = f"go on with --resume --set {self.rate_key}=VALUE, a smaller one"
        if self.low_precision:
            return f"start over with --set precision=float32 and --fresh, or {lower}"
        if first_step:  # nothing was learnt yet, so no rate is to blame
            return "no step was made yet: look at the given weights, the temperatures and the weights of the terms"
        return lower


class DivergedError(Exception):
    """What is not finite, and where it was seen first; becomes a `UserError` in `told_where`."""

    def __init__(self, what: str, step: int | None = None, rate: float | None = None) -> None:
        super().__init__(what)
        self.what, self.step, self.rate = what, step, rate


@contextmanager
def told_where(place: Place, part: Part) -> Iterator[None]:
    """Turn `DivergedError` into one line.

    part: of the epoch, as far as it has come.

    Raises:
        UserError: names phase, epoch, step, term and learning rate, and what to do.
    """
    try:
        yield
    except DivergedError as found:
        first = place.epoch == found.step == 1
        where = "at the end" if found.step is None else f"step {found.step} of {place.steps}"
        rate = place.rate if found.rate is None else found.rate
        whole = f"epoch {place.epoch - 1} is kept" if place.epoch > 1 else "nothing is kept of it yet"
        held = f"its step {part.kept} is kept" if part.kept else whole
        raise UserError(
            f"{place.job.name} diverged in epoch {place.epoch}, {where}: {found.what} "
            f"at a learning rate of {rate:g}; {held} in {place.job}: {place.advice(first)}"
        ) from None


def refuse_divergence(
    recent: Sequence[tuple[float, Mapping[str, Tensor]]],
    steps: int,
    gather: Callable[[Tensor], Tensor] = lambda tensor: tensor,
) -> None:
    """Raise `DivergedError` for the first of the last steps with a term that is not finite.

    Args:
        recent: learning rate and terms, scalars on the device, of each.
        steps: of this epoch, the last of them included.
        gather: joins the terms of all processes, so that all of them stop.
    """
    if not recent:
        return
    names = list(recent[0][1])
    values = torch.stack([torch.stack([terms[name].double() for name in names]) for _, terms in recent])
    values = gather(values[None])  # (processes, steps, terms)
    if values.isfinite().all():  # one look at the device
        return
    position = int((~values.isfinite()).any(dim=2).any(dim=0).int().argmax())
    rate, found = recent[position][0], values[:, position].tolist()
    bad = {
        name: value for row in found for name, value in zip(names, row, strict=True) if not math.isfinite(value)
    }
    name = next((name for name in bad if name != "loss"), "loss")  # the sum is not what is to blame
    raise DivergedError(f"{name} became {bad[name]}", steps - len(recent) + position + 1, rate)


def refuse_lost_scale(stepper: Stepper, steps: int) -> None:
    """Raise `DivergedError` where steps overflow float16 however little the loss is scaled; some always do.

    steps: of this epoch that were tried.
    """
    scale = stepper.scaler.get_scale()
    if scale < SMALLEST_SCALE:
        what = f"gradients overflow float16 even with the loss scaled by {scale:.1e}"
        raise DivergedError(what, steps, stepper.rate)


def refuse_infinite(measures: Mapping[str, float], objective: nn.Module, stepper: Stepper) -> None:
    """Raise `DivergedError` for measures, weights, their average, batch statistics, banks or momenta that are not
    finite.

    A network that diverged in the last step of an epoch is not done, though its terms were finite till then.
    """
    for name, value in measures.items():
        if not math.isfinite(value):
            raise DivergedError(f"{name} became {value}")
    for name, tensor in objective.state_dict().items():
        if not _is_finite(tensor):
            raise DivergedError(f"{name.removeprefix('model.')} is no longer finite")
    averaged = {} if stepper.average is None else stepper.average.averaged
    for name, tensor in averaged.items():
        if not _is_finite(tensor):
            raise DivergedError(f"the average of {name.removeprefix('model.')} is no longer finite")
    for state in stepper.optimizer.state.values():
        for name, value in state.items():
            if not _is_finite(value):
                raise DivergedError(f"the optimizer's {name} is no longer finite")


def _is_finite(value: object) -> bool:
    return not isinstance(value, Tensor) or not value.is_floating_point() or bool(torch.isfinite(value).all())
