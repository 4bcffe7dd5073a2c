"""The training loop, which minimises any `Objective`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from tqdm import tqdm

from dataset.images import Batch
from dataset.loader import count_batches, iter_imageless_batches, iter_training_batches
from dataset.prepare import TrainingData
from dataset.views.augment import make_generator
from errors import StoppedError, UserError, defer_signals
from models.checkpoint import copy_weights
from models.machine import Machine
from settings import stages
from training import distributed
from training.checkpointing import Checkpointer
from training.divergence import (
    TrainingLocation,
    refuse_divergence,
    refuse_infinite,
    refuse_lost_scale,
    report_divergence,
)
from training.evaluation import Measures, show_measures
from training.pace import Pace, show_duration
from training.progress import EpochProgress, TrainState, set_rng_states
from training.stepping import Stepper, make_stepper, train_step
from training.usage import EpochUsage, PeakMemory

LOG_EVERY = 50  # steps between two reads of the loss, each of which waits for the device
HIDDEN = ("epoch", "learning_rate", "val_loss", "test_loss")  # measures that an epoch's line does not print


@dataclass(frozen=True)
class Term:
    """One named part of a loss; weight 0 reports a value without minimising it."""

    value: Tensor  # scalar
    weight: float = 0.0


class Objective(nn.Module):
    """Base class of what a training minimises.

    `forward` turns a batch into named terms; the weights of `model` are the result of the training. If
    `sees_images` is False, batches come without images, which saves time.
    """

    model: nn.Module
    sees_images = True

    def forward(self, batch: Batch) -> dict[str, Term]:
        raise TypeError(f"{type(self).__name__} defines no terms")

    def make_parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Return the optimizer's parameter groups: by default all parameters that require a gradient, at `lr`."""
        return [{"params": [p for p in self.parameters() if p.requires_grad], "lr": lr}]

    def prepare(self, batches: Iterator[Batch]) -> None:
        """Read the batches of the first epoch before it starts. Not called when training is resumed."""

    def start_epoch(self) -> None:
        """Prepare for an epoch, with torch's generators seeded for it.

        Not called when training is resumed within the epoch, so everything it changes must be in the state dict.
        """

    def measure(self) -> Measures:
        """Return further measures of an epoch, beside the means of the terms."""
        return {}


@dataclass(frozen=True)
class TrainingPlan:
    """Length, optimizer and seed of a training."""

    epochs: int
    batch_size: int
    optimizer: stages.Optimizer
    seed: int
    first_epoch: int = 0  # later stages continue the order of images and views of the stages before
    views: int = 0  # different views of an image, which then repeat; 0: every epoch has a new one
    candidates: int = 0  # number of last epochs among which validation chooses; 0: all
    rate_key: str = "optimizer.lr"  # the learning rate's name in messages
    early_stopping: Callable[[Sequence[Measures]], bool] = lambda history: False  # returns True to stop
    name: str = ""  # shown in progress

    def select_view(self, epoch: int) -> int:
        """Return the number of the view that an epoch shows."""
        view = self.first_epoch + epoch
        return view % self.views if self.views else view


def train_one_epoch(
    objective: nn.Module,
    batches: Iterator[Batch],
    stepper: Stepper,
    machine: Machine,
    progress: tqdm[NoReturn],
    part: EpochProgress,
    after_step: Callable[[Callable[[], None]], None] = lambda check: None,
) -> Measures:
    """Make one pass over `batches`, or the rest of one; return the mean over steps of every term.

    after_step: called after each step with a function that checks for divergence.

    Raises:
        DivergedError: a term that is not finite.
    """
    recent: list[tuple[float, dict[str, Tensor]]] = []  # rates and terms of the steps since the last check

    def check() -> None:
        refuse_divergence(recent, part.steps, distributed.gather)
        refuse_lost_scale(stepper, part.steps)
        recent.clear()

    for first in batches:
        rate, size = stepper.rate, stepper.count_batches(part.steps)
        with defer_signals():
            values = train_step(objective, chain([first], islice(batches, size - 1)), stepper, machine, size)
            part.add(values)
            recent.append((rate, values))
            after_step(check)
        if part.steps % LOG_EVERY == 0:
            check()
            means = {name: total.item() / part.steps for name, total in part.sums.items()}
            progress.set_postfix_str(show_measures(means), refresh=False)
        progress.update()
    check()
    return {name: distributed.reduce_mean(total).item() / part.steps for name, total in part.sums.items()}


def seed_everything(*key: int) -> None:
    """Seed torch's global generators by a tuple of non-negative integers."""
    torch.manual_seed(make_generator(*key).initial_seed())


def seed_epoch(*key: int) -> None:
    """Seed an epoch. All processes have one CPU seed, because they draw negatives together."""
    seed_everything(*key, 0)
    if distributed.rank() > 0 and torch.cuda.is_available():
        torch.cuda.manual_seed(make_generator(*key, distributed.rank()).initial_seed())


def fit(
    objective: Objective,
    data: TrainingData,
    plan: TrainingPlan,
    machine: Machine,
    checkpointer: Checkpointer,
    pace: Pace | None = None,
) -> list[Measures]:
    """Train an objective to the end of its plan, from its checkpoint if any; return the measures of each epoch.

    All random numbers of epoch e follow from (plan.seed, e), so only a checkpoint within an epoch stores
    the states of generators. Afterwards the model has the weights of the candidate epoch with the best `val_top1`,
    or of the last epoch if that is not measured. With a moving average, they are averaged weights.

    Args:
        pace: predicts the time left, which is printed after each epoch.

    Raises:
        UserError: batches that the processes cannot share, a checkpoint that does not fit, or divergence, after
            which the last good checkpoint is kept.
    """
    world, count = distributed.world_size(), len(data.train)
    if min(plan.batch_size, count) % world:
        raise UserError(
            f"{world} processes cannot share batches of {plan.batch_size} images equally: change batch_size"
        )
    peak = PeakMemory(machine.device)
    wrapped = distributed.wrap_ddp(objective, machine.sync_batch_norm)
    batches, groups = count_batches(count, plan.batch_size), objective.make_parameter_groups(plan.optimizer.lr)
    stepper = make_stepper(objective, groups, plan.optimizer, plan.epochs, batches, machine)
    training = TrainState(objective, stepper, machine.device)
    if not checkpointer.load(training):
        objective.prepare(_load_batches(objective, data, plan, epoch=0))
    history, images = training.history, batches * min(plan.batch_size, count)
    after_step = partial(_save_if_due, checkpointer, training)
    is_quiet, name = machine.quiet or distributed.rank() > 0, plan.name or checkpointer.path.name
    try:
        while training.progress is not None or (len(history) < plan.epochs and not plan.early_stopping(history)):
            part, epoch = _enter_epoch(training, objective, plan), len(history) + 1
            is_low = machine.dtype != torch.float32
            place = TrainingLocation(checkpointer.path, plan.rate_key, epoch, part.rate, stepper.steps, is_low)
            rest = _load_batches(objective, data, plan, epoch - 1, part.steps * stepper.accumulate)
            title = f"{name} {epoch}/{plan.epochs}"
            with (
                _show_progress(title, stepper.steps, part.steps, is_quiet) as progress,
                report_divergence(place, part),
            ):
                with defer_signals() if world > 1 else nullcontext():  # processes end after the same step
                    means = train_one_epoch(wrapped, rest, stepper, machine, progress, part, after_step)
                speed = images / part.elapsed
                history.append(_end_epoch(training, objective, plan, part, means))
                seconds = part.elapsed
            training.progress = None
            with defer_signals():
                checkpointer.save(training)
                checkpointer.log_epoch(history[-1], EpochUsage(epoch, speed, seconds, peak.read(), peak.of))
                left = _predict_left(pace, images, seconds, plan.epochs - epoch)
                if not is_quiet:
                    _print_epoch(title, history[-1], speed, left)
            distributed.wait_for_all()
    finally:
        checkpointer.finish()
    if len(history) < plan.epochs and not is_quiet:
        print(f"{name} ended after {len(history)} of {plan.epochs} epochs: no improvement", flush=True)
    if stepper.average is not None:
        stepper.average.keep()
    if training.best is not None:
        objective.model.load_state_dict(training.best["model"])
    return history


def _load_batches(
    objective: Objective, data: TrainingData, plan: TrainingPlan, epoch: int, first: int = 0
) -> Iterator[Batch]:
    """Return this process's batches of an epoch, starting at batch `first`."""
    load = iter_training_batches if objective.sees_images else iter_imageless_batches
    number, rank, world = plan.first_epoch + epoch, distributed.rank(), distributed.world_size()
    return load(data, plan.batch_size, plan.seed, number, plan.select_view(epoch), rank, world, first)


def _show_progress(title: str, steps: int, done: int, is_quiet: bool) -> tqdm[NoReturn]:
    return tqdm(total=steps, initial=done, desc=title, disable=is_quiet or None, leave=False, unit="step")


def _save_if_due(checkpointer: Checkpointer, training: TrainState, check: Callable[[], None]) -> None:
    """Save a checkpoint if one is due, and stop the training if a signal asked for it.

    Raises:
        DivergedError: a term or a weight is not finite; nothing is saved.
        StoppedError: a signal asked one of the processes to end.
    """
    decision, part = checkpointer.decide(training), training.progress
    if decision.is_due and part is not None:
        check()
        refuse_infinite({}, training.objective, training.stepper)
        checkpointer.save(training)
        part.kept = part.steps
        distributed.wait_for_all()  # torchrun ends all processes when one exits: every one must have saved
    if decision.signal:
        raise StoppedError(decision.signal)


def _predict_left(pace: Pace | None, images: int, seconds: float, epochs: int) -> float | None:
    """Return the seconds that the command still needs, None if unknown. `epochs`: left in this training."""
    if pace is None:
        return None
    pace.add(images, seconds)
    return pace.predict_left(epochs * images, seconds / images)


def _print_epoch(title: str, measures: Measures, images_per_second: float, seconds_left: float | None) -> None:
    shown = {name: value for name, value in measures.items() if name not in HIDDEN}
    parts = [show_measures({**shown, "lr": measures["learning_rate"]}, "  "), f"{images_per_second:,.0f} images/s"]
    parts += [] if seconds_left is None else [f"{show_duration(seconds_left)} left"]
    tqdm.write("  ".join([title, *parts]))
    sys.stdout.flush()  # so that a log file shows each epoch as it ends


def _enter_epoch(training: TrainState, objective: Objective, plan: TrainingPlan) -> EpochProgress:
    """Start the next epoch, or continue the epoch of the checkpoint."""
    part, number = training.progress, plan.first_epoch + len(training.history)
    if part is None:
        seed_epoch(plan.seed, number)
        objective.start_epoch()
        training.progress = part = EpochProgress(rate=training.stepper.rate)
    elif part.generators is None:
        seed_epoch(plan.seed, number, part.steps)
    else:
        set_rng_states(part.generators, training.device)
    objective.train()
    return part


def _end_epoch(
    training: TrainState, objective: Objective, plan: TrainingPlan, part: EpochProgress, means: Measures
) -> dict[str, float]:
    """Measure an epoch, keep its weights if it is the best so far, and return its measures."""
    epoch = len(training.history) + 1
    distributed.share_buffers(objective.model)
    with training.stepper.hold_average():
        distributed.share_buffers(objective.model)
        measures = distributed.broadcast_object(objective.measure())  # so that all processes decide the same
        known = {"epoch": epoch, "learning_rate": part.rate, **means, **measures}
        if epoch > plan.epochs - (plan.candidates or plan.epochs):
            training.best = _choose_best(training.best, known, objective.model)
    refuse_infinite(measures, objective, training.stepper)
    return known


def _choose_best(best: dict[str, Any] | None, measures: Measures, model: nn.Module) -> dict[str, Any] | None:
    """Return the best epoch so far by validation accuracy, with a copy of its weights."""
    value = measures.get("val_top1")
    if value is None or (best is not None and value <= best["val_top1"]):
        return best
    return {"epoch": measures["epoch"], "val_top1": value, "model": copy_weights(model)}
