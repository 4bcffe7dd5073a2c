"""The one training loop. A phase hands it an `Objective`: what to minimise, what to train, what to measure.

Letters: B batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from tqdm import tqdm

from dataset.images import Batch
from dataset.loader import imageless_batches, steps_per_epoch, training_batches
from dataset.prepare import TrainingData
from dataset.views.augment import generator
from errors import UserError, finish_first
from models.checkpoint import copy_of
from models.machine import Machine
from settings import stages
from training import distributed
from training.divergence import Place, refuse_divergence, refuse_infinite, refuse_lost_scale, told_where
from training.evaluation import Measures, show_measures
from training.pace import Pace
from training.progress import Part, Training, set_generators
from training.run.job_folder import JobFolder
from training.run.keeping import Keeper
from training.run.usage import EpochUsage, PeakMemory
from training.stepping import Stepper, make_stepper, train_step

LOOK_EVERY = 50  # steps between two looks at the loss, each of which waits for the device


@dataclass(frozen=True)
class Term:
    """One named part of a loss; weight 0 reports a value without minimising it."""

    value: Tensor  # scalar
    weight: float = 0.0


class Objective(nn.Module):
    """What a phase minimises. `forward` turns a batch into named terms; `model` is the network whose weights
    are the phase's result. Without `sees_images` its batches have none, which spares making them."""

    model: nn.Module
    sees_images = True

    def forward(self, batch: Batch) -> dict[str, Term]:
        raise TypeError(f"{type(self).__name__} defines no terms")

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Return parameter groups for the optimizer: by default all that require a gradient, at `lr`."""
        return [{"params": [p for p in self.parameters() if p.requires_grad], "lr": lr}]

    def begin(self, batches: Iterator[Batch]) -> None:
        """Prepare for the first epoch, whose batches these are. Not called when training is resumed."""

    def begin_epoch(self) -> None:
        """Prepare for an epoch, with torch's generators seeded for it. Not called when training is resumed within
        it, so what it changes must be in the state dict."""

    def measure(self) -> Measures:
        """Return what to report after an epoch beside the terms."""
        return {}


@dataclass(frozen=True)
class Plan:
    """How long a phase trains, and with what.

    Training epoch e has the order and the view of epoch (first_epoch + e) of a training that starts at 0, the
    view modulo `views` where that is not 0. Where validation decides, it is between the last `candidates` epochs,
    or all with 0. A message
    names the learning rate as `rate_key`. A checkpoint within an epoch is written every `checkpoint_minutes`, with
    0 only before a signal ends the training. `ended` says of what the epochs so far measured whether it is enough.
    `name` is what progress calls the training.
    """

    epochs: int
    batch_size: int
    optimizer: stages.Optimizer
    seed: int
    first_epoch: int = 0
    views: int = 0
    candidates: int = 0
    rate_key: str = "optimizer.lr"
    checkpoint_minutes: float = 0.0
    ended: Callable[[Sequence[Measures]], bool] = lambda history: False
    name: str = ""

    def view(self, epoch: int) -> int:
        view = self.first_epoch + epoch
        return view % self.views if self.views else view


def train_one_epoch(
    objective: nn.Module,
    batches: Iterator[Batch],
    stepper: Stepper,
    machine: Machine,
    progress: tqdm[NoReturn],
    part: Part,
    after_step: Callable[[Callable[[], None]], None] = lambda look: None,
) -> Measures:
    """Make one pass over `batches`, or what `part` leaves of it; return the mean over steps of every term.

    after_step: called after each step, before a signal ends the training, with a look for divergence.

    Raises:
        DivergedError: a term that is not finite.
    """
    recent: list[tuple[float, dict[str, Tensor]]] = []  # of the steps since the last look, with their rates

    def look() -> None:
        refuse_divergence(recent, part.steps, distributed.gather)
        refuse_lost_scale(stepper, part.steps)
        recent.clear()

    for first in batches:
        rate, size = stepper.rate, stepper.size(part.steps)
        with finish_first():
            values = train_step(objective, chain([first], islice(batches, size - 1)), stepper, machine, size)
            part.add(values)
            recent.append((rate, values))
            after_step(look)
        if part.steps % LOOK_EVERY == 0:
            look()
            means = {name: total.item() / part.steps for name, total in part.sums.items()}
            progress.set_postfix_str(show_measures(means), refresh=False)
        progress.update()
    look()
    return {name: distributed.mean(total).item() / part.steps for name, total in part.sums.items()}


def seed_everything(*key: int) -> None:
    """Seed torch's global generators by a tuple of non-negative integers."""
    torch.manual_seed(generator(*key).initial_seed())


def seed_epoch(*key: int) -> None:
    """Seed what an epoch draws, on the CPU alike in all processes, which draw negatives together."""
    seed_everything(*key, 0)
    if distributed.rank() > 0 and torch.cuda.is_available():
        torch.cuda.manual_seed(generator(*key, distributed.rank()).initial_seed())


def fit(
    objective: Objective,
    data: TrainingData,
    plan: Plan,
    machine: Machine,
    folder: JobFolder,
    pace: Pace | None = None,
) -> list[Measures]:
    """Train an objective to the end of its plan, from the folder's checkpoint where there is one.

    All that is random in epoch e follows from (plan.seed, e), so a checkpoint at the end of each epoch is enough
    to go on as if nothing had happened; one within an epoch holds the generators too. Ends with the objective's
    model at the best of the plan's candidates by `val_top1` where that is measured, otherwise at its last epoch.
    Where weights are averaged, their average is what is measured and kept.

    Args:
        pace: of the command, from which each epoch's line says how long the rest takes.

    Returns:
        What was measured in each epoch, in order.

    Raises:
        UserError: batches that the processes cannot share, a checkpoint that does not fit, or a training that
            diverged, of which the last good checkpoint stays.
    """
    world, rank, name = distributed.world_size(), distributed.rank(), plan.name or folder.name
    if min(plan.batch_size, len(data.train)) % world:
        raise UserError(
            f"{world} processes cannot share batches of {plan.batch_size} images equally: change batch_size"
        )
    peak = PeakMemory(machine.device)
    trained = distributed.averaging(objective, machine.sync_batch_norm)
    images = steps_per_epoch(len(data.train), plan.batch_size) * min(plan.batch_size, len(data.train))  # an epoch
    stepper = _stepper(objective, len(data.train), plan, machine)
    training, steps = Training(objective, stepper, machine.device), stepper.steps

    def batches(epoch: int, first: int = 0) -> Iterator[Batch]:
        made = training_batches if objective.sees_images else imageless_batches
        number, view = plan.first_epoch + epoch, plan.view(epoch)
        return made(data, plan.batch_size, plan.seed, number, view, rank, world, first)

    if not folder.restore(training):
        objective.begin(batches(0))
    keeper, history = Keeper(folder, training, plan.checkpoint_minutes), training.history
    with folder.log(history, machine.quiet, writes=rank == 0) as log:
        while training.part is not None or (len(history) < plan.epochs and not plan.ended(history)):
            part, epoch = _enter_epoch(training, objective, plan), len(history) + 1
            place = Place(folder.path, plan.rate_key, epoch, part.rate, steps, machine.dtype != torch.float32)
            with (
                log.progress(f"{name} {epoch}/{plan.epochs}", steps, part.steps) as progress,
                told_where(place, part),
            ):
                with finish_first() if world > 1 else nullcontext():  # processes end after the same step
                    rest = batches(epoch - 1, part.steps * stepper.accumulate)
                    means = train_one_epoch(trained, rest, stepper, machine, progress, part, keeper.after_step)
                seconds = part.elapsed
                history.append(_end_epoch(training, objective, plan, part, means))
                whole = part.elapsed
            training.part = None
            with finish_first():
                keeper.write()
                if rank == 0:
                    usage = EpochUsage(images / seconds, whole, peak.bytes(), peak.of)
                    log.epoch(
                        name, history[-1], plan.epochs, usage, _predict(pace, images, whole, len(history), plan)
                    )
            distributed.barrier()
    if len(history) < plan.epochs and rank == 0 and not machine.quiet:
        print(f"{name} ended after {len(history)} of {plan.epochs} epochs: no improvement", flush=True)
    if stepper.average is not None:
        stepper.average.keep()
    if training.best is not None:
        objective.model.load_state_dict(training.best["model"])
    return history


def _predict(pace: Pace | None, images: int, seconds: float, done: int, plan: Plan) -> float | None:
    """Return the seconds that are left of a command after an epoch of so many images, None where none is known."""
    if pace is None:
        return None
    pace.add(images, seconds)
    return pace.predict_left((plan.epochs - done) * images, seconds / images)


def _stepper(objective: Objective, count: int, plan: Plan, machine: Machine) -> Stepper:
    """Return what a plan makes steps with, on `count` training images."""
    groups, batches = objective.parameter_groups(plan.optimizer.lr), steps_per_epoch(count, plan.batch_size)
    return make_stepper(objective, groups, plan.optimizer, plan.epochs, batches, machine)


def _enter_epoch(training: Training, objective: Objective, plan: Plan) -> Part:
    """Begin the next epoch, or go on with the one that a checkpoint was written in."""
    part, number = training.part, plan.first_epoch + len(training.history)
    if part is None:
        seed_epoch(plan.seed, number)
        objective.begin_epoch()
        training.part = part = Part(rate=training.stepper.rate)
    elif part.generators is None:
        seed_epoch(plan.seed, number, part.steps)
    else:
        set_generators(part.generators, training.device)
    objective.train()
    return part


def _end_epoch(
    training: Training, objective: Objective, plan: Plan, part: Part, means: Measures
) -> dict[str, float]:
    """Measure what an epoch reached, and keep it where it is the best so far; gives all that is known of it."""
    epoch = len(training.history) + 1
    distributed.share_buffers(objective.model)
    with training.stepper.averaged():
        distributed.share_buffers(objective.model)
        measures = distributed.from_first(objective.measure())  # so that all decide the same
        known = {"epoch": epoch, "learning_rate": part.rate, **means, **measures}
        if epoch > plan.epochs - (plan.candidates or plan.epochs):
            training.best = _better(training.best, known, objective.model)
    refuse_infinite(measures, objective, training.stepper)
    return known


def _better(best: dict[str, Any] | None, measures: Measures, model: nn.Module) -> dict[str, Any] | None:
    """Return the best epoch so far by validation accuracy, with a copy of its weights."""
    value = measures.get("val_top1")
    if value is None or (best is not None and value <= best["val_top1"]):
        return best
    return {"epoch": measures["epoch"], "val_top1": value, "model": copy_of(model)}
