"""The state of a training, in epochs and steps: all that a checkpoint holds."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import FiniteFloat, TypeAdapter
from torch import Tensor, nn

from errors import warn
from training import distributed
from training.stepping import Stepper

HISTORY = TypeAdapter(list[dict[str, int | FiniteFloat]])
RngStates = dict[str, Tensor]  # of torch's global generators, by "cpu" and "cuda"


@dataclass
class EpochProgress:
    """The steps done of an epoch, and what its other steps need of them."""

    rate: float  # learning rate as the epoch began
    steps: int = 0
    kept: int = 0  # how many of the steps a checkpoint holds
    seconds: float = 0.0  # that the steps took in earlier starts of the program
    sums: dict[str, Tensor] = field(default_factory=dict)  # of each term over the steps, float64 scalars
    generators: RngStates | None = None  # as the last step left them; None to seed again
    started: float = field(default_factory=time.perf_counter)

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Count one step with its terms, which stay on the device."""
        sums = self.sums
        self.sums = {name: sums[name] + one if name in sums else one.double() for name, one in values.items()}
        self.steps += 1

    @property
    def elapsed(self) -> float:
        """Seconds of the epoch, without those between two starts of the program."""
        return self.seconds + time.perf_counter() - self.started

    def collect_state(self, device: torch.device) -> dict[str, Any]:
        """Return plain values with the state of every process; all of them have to call this."""
        own = {
            "sums": {name: total.item() for name, total in self.sums.items()},
            "generators": get_rng_states(device),
        }
        return {
            "rate": self.rate,
            "steps": self.steps,
            "seconds": self.elapsed,
            "processes": distributed.gather_objects(own),
        }


def restore_progress(state: Mapping[str, Any], device: torch.device) -> EpochProgress:
    """Return this process's part from what `Part.collect_state` returned.

    With another number of processes, sums are the mean over the former ones and the epoch's other steps draw other
    random numbers, with a warning.

    Raises:
        KeyError, TypeError, RuntimeError: it is no such state.
    """
    processes, world = state["processes"], distributed.world_size()
    if len(processes) == world:
        own = processes[distributed.rank()]
        sums, drawn = own["sums"], own["generators"]
        torch.Generator().set_state(drawn["cpu"])  # fails here and not in the middle of the epoch
    else:
        warn(
            f"going on within an epoch that {len(processes)} processes began, with {world}: its results are not "
            "those of a training that was never stopped"
        )
        names, drawn = processes[0]["sums"], None
        sums = {name: sum(one["sums"][name] for one in processes) / len(processes) for name in names}
    steps = int(state["steps"])
    totals = {name: torch.tensor(total, dtype=torch.float64, device=device) for name, total in sums.items()}
    return EpochProgress(float(state["rate"]), steps, steps, float(state["seconds"]), totals, drawn)


def get_rng_states(device: torch.device) -> RngStates:
    """Return the states of the generators that a training on `device` draws from."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_rng_states(states: RngStates, device: torch.device) -> None:
    """Restore what `get_rng_states` returned."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


@dataclass
class TrainState:
    """A training and how far it has come."""

    objective: nn.Module
    stepper: Stepper
    device: torch.device
    history: list[dict[str, float]] = field(default_factory=list)  # measures of the finished epochs
    best: dict[str, Any] | None = None  # epoch by validation accuracy, with its weights
    progress: EpochProgress | None = None  # of the current epoch, None between two

    def collect_state(self) -> dict[str, Any]:
        """Return all that a resumed training needs; within an epoch all processes have to call this."""
        return {
            "objective": self.objective.state_dict(),
            **self.stepper.state(),
            "history": list(self.history),
            "best": self.best,
            "part": None if self.progress is None else self.progress.collect_state(self.device),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned, at the learning rates that this optimizer begins with.

        Raises:
            KeyError, RuntimeError, ValueError, TypeError, AttributeError, IndexError: it does not fit.
        """
        self.objective.load_state_dict(state["objective"])
        self.stepper.load(state)
        self.history, self.best = check_history(state["history"]), _check_best(state["best"])
        self.progress = None if state["part"] is None else restore_progress(state["part"], self.device)
        steps = self.stepper.steps
        if self.progress is not None and not 0 < self.progress.steps <= steps:
            raise ValueError(f"step {self.progress.steps} of {steps}")


def check_history(lines: Any) -> list[dict[str, float]]:
    """Return the lines of a history, each the finite numbers of an epoch by name.

    Raises:
        ValueError: anything else.
    """
    history = HISTORY.validate_python(lines, strict=True)
    if not all("epoch" in line for line in history):
        raise ValueError("a line of measures has no epoch")
    return history


def _check_best(best: Any) -> dict[str, Any] | None:
    if best is not None and not ("model" in best and math.isfinite(best["val_top1"])):
        raise ValueError("this is no epoch with its weights")
    return best
