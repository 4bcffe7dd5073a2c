"""How far a training has come, in epochs and in steps of the one it is in: all that a checkpoint holds."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from errors import warn
from training import distributed
from training.run.history import checked_best, checked_history
from training.stepping import Stepper

Generators = dict[str, Tensor]  # states of torch's global generators, by "cpu" and "cuda"


@dataclass
class Part:
    """The steps of an epoch that are done, and what the rest of it needs of them."""

    rate: float  # learning rate as the epoch began
    steps: int = 0
    kept: int = 0  # of the steps, how many a checkpoint holds
    seconds: float = 0.0  # that the steps took before this start of the program
    sums: dict[str, Tensor] = field(default_factory=dict)  # of each term over the steps, float64 scalars
    generators: Generators | None = None  # as the last of the steps left them; None to draw anew
    started: float = field(default_factory=time.perf_counter)

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Count one step with its terms, which stay on the device."""
        sums = self.sums
        self.sums = {name: sums[name] + one if name in sums else one.double() for name, one in values.items()}
        self.steps += 1

    @property
    def elapsed(self) -> float:
        """Seconds that the epoch has taken, those between two starts of the program aside."""
        return self.seconds + time.perf_counter() - self.started

    def state(self, device: torch.device) -> dict[str, Any]:
        """Return plain values, with the own state of every process; all of them have to ask."""
        own = {
            "sums": {name: total.item() for name, total in self.sums.items()},
            "generators": generators(device),
        }
        return {
            "rate": self.rate,
            "steps": self.steps,
            "seconds": self.elapsed,
            "processes": distributed.gather_objects(own),
        }


def part_from(state: Mapping[str, Any], device: torch.device) -> Part:
    """Return the part that `Part.state` describes, as it was in this process.

    With another number of processes than before the sums are the mean over those, and the rest of the epoch draws
    anew, which is said.

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
    return Part(float(state["rate"]), steps, steps, float(state["seconds"]), totals, drawn)


def generators(device: torch.device) -> Generators:
    """Return states of the generators that a training on `device` draws from."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_generators(states: Generators, device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


@dataclass
class Training:
    """What is trained and how far it has come."""

    objective: nn.Module
    stepper: Stepper
    device: torch.device
    history: list[dict[str, float]] = field(default_factory=list)  # measures of the epochs that are done
    best: dict[str, Any] | None = None  # epoch by validation accuracy, with its weights
    part: Part | None = None  # of the epoch that has begun, None between two

    def state(self) -> dict[str, Any]:
        """Return all that is needed to go on; within an epoch all processes have to ask."""
        return {
            "objective": self.objective.state_dict(),
            **self.stepper.state(),
            "history": list(self.history),
            "best": self.best,
            "part": None if self.part is None else self.part.state(self.device),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave, at the learning rates that this optimizer begins with.

        Raises:
            KeyError, RuntimeError, ValueError, TypeError, AttributeError, IndexError: it does not fit.
        """
        self.objective.load_state_dict(state["objective"])
        self.stepper.load(state)
        self.history, self.best = checked_history(state["history"]), checked_best(state["best"])
        part = state.get("part")  # earlier versions wrote none
        self.part = None if part is None else part_from(part, self.device)
        steps = self.stepper.steps
        if self.part is not None and not 0 < self.part.steps <= steps:
            raise ValueError(f"step {self.part.steps} of {steps}")
