"""A few steps of a job in memory, on real batches: what the whole job takes follows from what they take.

Where a whole batch would take too long a smaller one stands for it, and what grows with the images is scaled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace
from itertools import chain, count, islice, pairwise
from statistics import median
from typing import Any

from torch import Tensor
from tqdm import tqdm

from dataset.images import Batch, ImageTensors
from dataset.loader import imageless_batches, steps_per_epoch, training_batches
from dataset.prepare import TrainingData
from models.machine import Machine
from models.peak import Peak
from training import distributed
from training.crd import HELD_OUT, Alignment
from training.divergence import DivergedError
from training.engine import EVALUATION_BATCH, Objective, train_one_epoch
from training.experiment import Experiment
from training.job_name import JobName
from training.prepared import Prepared
from training.progress import Part, Training
from training.stand_ins import FEW, StandIns, measured, now, prepare_job
from training.stepping import make_stepper

MOST_STEPS = 20
OF_PASSES, OF_EVALUATION, OF_STEPS = 0.1, 0.15, 0.4  # shares of the time that a rehearsal has


@dataclass(frozen=True)
class Rehearsal:
    """What a job takes, in seconds and bytes."""

    images: int  # of an epoch
    start: float  # before the first epoch
    epoch: float  # each, without writing its checkpoint
    end: float  # after the last
    memory: int  # of the process, at most
    gpu: int  # of a GPU, at most
    checkpoint: int  # one
    weights: int  # what stays
    batch: int  # images of the steps that were tried
    whole_batch: int


def rehearse(name: JobName, experiment: Experiment, limit: float) -> Rehearsal:
    """Try a job for about `limit` seconds, or for as long as a few steps of very few images take."""
    machine = replace(experiment.machine, compile=False)  # compiling would take minutes
    experiment, peak = replace(experiment, machine=machine), Peak(machine.device)
    scene = _set_up(name, experiment, limit, peak)
    prepared, plan = scene.prepared, scene.prepared.plan
    steps = _Steps(prepared, machine, peak)
    steps.measure(OF_STEPS * limit)
    number = steps_per_epoch(len(prepared.data.train), plan.batch_size)
    start = scene.seconds + scene.given.once + steps.beginning(number)
    prepared.objective.begin_epoch()
    epoch = measured(prepared.objective.begin_epoch, machine) + number * steps.seconds
    evaluation = scene.evaluation(peak, machine)
    views = min(plan.views, plan.epochs) or plan.epochs  # that are shown, each for the first time once
    more = evaluation.memory + steps.memory  # that whole batches take beyond what was tried
    on_gpu = machine.device.type == "cuda"
    return Rehearsal(
        len(prepared.data.train),
        start + evaluation.first,
        epoch + evaluation.seconds + scene.given.a_view * views / plan.epochs,
        0.0 if name.kind == "stage1" else evaluation.first + evaluation.seconds,
        peak.process + scene.given.kept + (0 if on_gpu else more),
        peak.gpu + (more if on_gpu else 0),
        bytes_of(steps.training.state()) + (bytes_of(_weights(prepared)) if prepared.data.val else 0),
        bytes_of(_weights(prepared)) + _projections(prepared.objective),
        steps.batch,
        min(plan.batch_size, len(prepared.data.train)),
    )


@dataclass(frozen=True)
class _Evaluation:
    seconds: float  # of all images, each time
    first: float  # more than that the first time
    memory: int  # that larger batches take more


@dataclass(frozen=True)
class _Scene:
    """A job with its stand-ins, on fewer images to measure on than there are."""

    prepared: Prepared
    given: StandIns
    seconds: float  # that preparing took
    whole: TrainingData  # with all images

    def looked_at(self, data: TrainingData) -> int:
        """Images on which the job measures after an epoch, of such data."""
        if isinstance(self.prepared.objective, Alignment):
            return min(HELD_OUT, len(data.held_out or data.test))
        validation = data.val if self.prepared.data.val is not None else None
        return len(data.test) + (len(validation) if validation is not None else 0)

    def evaluation(self, peak: Peak, machine: Machine) -> _Evaluation:
        """What measuring after an epoch takes; the first time a job with frozen features makes them."""
        objective = self.prepared.objective
        seconds, growth = _cost(objective.measure, machine, peak)
        again = measured(objective.measure, machine)
        tried, all_of_them = self.looked_at(self.prepared.data), self.looked_at(self.whole)
        first = 0.0 if objective.sees_images else max(0.0, seconds - again)
        larger = min(EVALUATION_BATCH, all_of_them) / min(EVALUATION_BATCH, tried)
        scale = all_of_them / tried / distributed.world_size()
        return _Evaluation(again * scale, first * scale, round((larger - 1) * growth))


def _set_up(name: JobName, experiment: Experiment, limit: float, peak: Peak) -> _Scene:
    """A job that measures on as many images as there is time for, all where they are few."""
    scene = _scene(name, experiment, limit, FEW, peak)
    measure = scene.prepared.objective.measure
    measure()
    seconds = measured(measure, experiment.machine)
    affordable = int(FEW * OF_EVALUATION * limit / (2 * seconds))
    return scene if affordable <= FEW else _scene(name, experiment, limit, affordable, peak)


def _scene(name: JobName, experiment: Experiment, limit: float, images: int, peak: Peak) -> _Scene:
    given, made = StandIns(experiment.machine, OF_PASSES * limit), list[Prepared]()
    fewer = replace(experiment, data=with_fewer(experiment.data, images))
    seconds, _ = _cost(lambda: made.append(prepare_job(name, fewer, given)), experiment.machine, peak)
    return _Scene(made[0], given, seconds, experiment.data)


def _cost(call: Callable[[], object], machine: Machine, peak: Peak) -> tuple[float, int]:
    """Seconds that a call takes, and bytes that memory grows by meanwhile."""
    seconds = list[float]()
    growth = peak.growth(lambda: seconds.append(measured(call, machine)))
    return seconds[0], growth


def with_fewer(data: TrainingData, images: int) -> TrainingData:
    """The same with at most so many images of each kind that is only measured on."""

    def first(kind: ImageTensors) -> ImageTensors:
        some = copy(kind)  # shares the pixels
        some.labels = kind.labels[:images]
        return some

    val, held_out = (kind and first(kind) for kind in (data.val, data.held_out))
    return replace(data, val=val, test=first(data.test), held_out=held_out)


class _Steps:
    """Steps of a job by the project's own loop, of whole batches or of as many images as there is time for."""

    def __init__(self, prepared: Prepared, machine: Machine, peak: Peak) -> None:
        self.prepared, self.machine, self.peak = prepared, machine, peak
        objective, settings = prepared.objective, prepared.plan.optimizer
        self.trained = distributed.averaging(objective, machine.sync_batch_norm)
        groups = objective.parameter_groups(settings.lr)
        self.stepper = make_stepper(objective, groups, settings, 1000, 1000, machine)
        self.training = Training(objective, self.stepper, machine.device)
        self.whole = min(prepared.plan.batch_size, len(prepared.data.train))
        self.batch = min(self.whole, FEW * distributed.world_size())
        self.seconds = 0.0  # of a whole batch
        self.memory = 0  # bytes that a whole batch takes more than those tried

    def measure(self, limit: float) -> None:
        """Find out what a step takes: with few images first, then with as many as there is time for."""
        seconds, growth = self._time(2, min)
        an_image = seconds / self.batch
        while self.batch < self.whole:
            smaller, larger = self.batch, min(self.whole, 4 * self.batch)
            if 3 * seconds * larger / smaller > 2 * limit:  # few images mostly take what any step does
                break
            before, self.batch = seconds, larger
            seconds, growth = self._time(2, min)
            an_image = max(0.0, seconds - before) / (larger - smaller)  # beside what any step takes
        number = min(MOST_STEPS, int(limit / (2 * seconds)))
        if number > 2:
            seconds, growth = self._time(number, median)
        self.seconds = seconds + an_image * (self.whole - self.batch)
        self.memory = round(growth * (self.whole / self.batch - 1))

    def _time(self, number: int, of: Callable[[list[float]], float]) -> tuple[float, int]:
        """Seconds of a step and bytes that it takes, of some steps after one that is not counted."""
        batches, seconds = self.batches(), list[float]()
        self._run(batches, 1)
        growth = self.peak.growth(lambda: seconds.extend(self._run(batches, number)))
        return distributed.from_first(of(seconds)), growth

    def _run(self, batches: Iterator[Batch], number: int) -> list[float]:
        """Make some steps; gives the seconds of each batch, with those of making it."""
        self.prepared.objective.train()
        part, bar, times = Part(rate=self.prepared.plan.optimizer.lr), tqdm(disable=True), [now(self.machine)]
        with suppress(DivergedError):  # with untrained networks that says nothing
            train_one_epoch(
                self.trained,
                islice(batches, number * self.stepper.accumulate),
                self.stepper,
                self.machine,
                bar,
                part,
                lambda look: times.append(now(self.machine)),
            )
        return [(after - before) / self.stepper.accumulate for before, after in pairwise(times)]

    def batches(self) -> Iterator[Batch]:
        """Batches as the job would see them, without end."""
        plan, data = self.prepared.plan, self.prepared.data
        made = training_batches if self.prepared.objective.sees_images else imageless_batches
        view, place = plan.view(0), (distributed.rank(), distributed.world_size())
        return chain.from_iterable(made(data, self.batch, plan.seed, epoch, view, *place) for epoch in count())

    def beginning(self, number: int) -> float:
        """Seconds of what comes before the first step: an epoch of `number` whole batches is seen, or none."""
        seen = 0

        def counted(most: int) -> Iterator[Batch]:
            nonlocal seen
            for batch in islice(self.batches(), most):
                seen += 1
                yield batch

        begin = self.prepared.objective.begin
        one = measured(lambda: begin(counted(1)), self.machine)
        if not seen:
            return one
        three = measured(lambda: begin(counted(3)), self.machine)
        each = max(0.0, three - one) / 2
        return one + each * (number * self.whole / self.batch - 1)


def bytes_of(state: object) -> int:
    """Of all tensors in nested dicts and lists."""
    if isinstance(state, Tensor):
        return state.nbytes
    if isinstance(state, Mapping):
        return sum(bytes_of(value) for value in state.values())
    return sum(bytes_of(value) for value in state) if isinstance(state, list | tuple) else 0


def _weights(prepared: Prepared) -> dict[str, Any]:
    return prepared.objective.model.state_dict()


def _projections(objective: Objective) -> int:
    return bytes_of(objective.losses.projections()) if isinstance(objective, Alignment) else 0
