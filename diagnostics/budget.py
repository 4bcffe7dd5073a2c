"""Budget of a finished training: epochs, images, passes, parameters and settings.

Letters: N training images, V cached views an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from dataset.prepare import TrainingData
from losses.kl import KL
from losses.loss import Loss, Sizes
from models.layout import Layout
from models.zoo import count_parameters
from settings.loss_options import get_loss_title
from settings.stages import LossUse, Stage
from training.checks import make_losses
from training.experiment import Experiment
from training.job_name import TEACHER, JobName, get_stage, list_chain
from training.phases import Job
from training.reading import find_reading, find_shapes
from training.setup import select_images, uses_frozen_features
from training.stepping import count_steps
from training.usage import Usage, read_usage


@dataclass(frozen=True)
class TrainingBudget:
    """One finished training: of the teacher, or one stage of a method."""

    job: str  # its folder below the seed's: "teacher", "kd", "two_stage/stage1", ...
    train: str  # part of the network, with what stands behind it
    epochs: int  # as trained
    planned: int  # epochs of the config
    images: int  # N
    balanced: bool  # those are the balanced images
    batch_size: int  # images a step
    steps: int  # batches
    passes: int  # images forwards and backwards through the network
    forward_only: int  # images through frozen features, or to fill banks, never backwards
    frozen: bool  # only the head trained, on features computed beforehand
    teacher_passes: int  # images forwards through the teacher
    cached: bool  # those were computed once for all trainings on the same images
    parameters: int  # of the network, that trained
    optimizer: str  # name, rate and schedule
    reported: str  # the epoch whose weights are evaluated
    losses: dict[str, str]  # weight of each by name, with its schedule
    temperature: float | None = None  # of the KL term, None without one
    accumulate: int = 1  # batches a step of the optimizer
    starts_from: str | None = None  # the method whose weights it began with, or teacher
    usage: Usage = field(default_factory=Usage)  # as it was run

    @property
    def title(self) -> str:
        """Name for readers: "two_stage stage 1"."""
        method, _, stage = self.job.partition("/stage")
        return f"{method} stage {stage}" if stage else method

    @property
    def updates(self) -> int:
        """Steps of the optimizer."""
        return self.epochs * count_steps(self.steps // self.epochs, self.accumulate)

    @property
    def seen(self) -> int:
        """Images shown, one counted as often as it came."""
        return self.steps * self.batch_size

    @property
    def ended_early(self) -> int:
        """Planned epochs that early stopping left out."""
        return self.planned - self.epochs


def describe_trainings(experiment: Experiment, job: JobName) -> list[TrainingBudget] | None:
    """Describe a finished job, after the jobs whose weights it began with.

    None where one of them has no training on record, such as a teacher given as a file.
    """
    found = [_describe(experiment, one) for one in list_chain(experiment.config, job)]
    known = [training for training in found if training is not None]
    return known if len(known) == len(found) else None


def _describe(experiment: Experiment, name: JobName) -> TrainingBudget | None:
    config, folder = experiment.config, experiment.folder.get_job(name)
    epochs = folder.read_result().get("epochs") if folder.is_finished else None
    if epochs is None:
        return None
    job, data = Job(name, folder, get_stage(config, name)), select_images(experiment, name)
    stage, losses = job.stage, list(make_losses(experiment, job).values())
    count = len(data.train)
    batch_size, steps = min(stage.batch_size, count), job.count_batches(data)
    return TrainingBudget(
        job=name.label,
        train=_describe_part(stage),
        epochs=epochs,
        planned=stage.epochs,
        images=count,
        balanced=stage.images == "balanced",
        batch_size=batch_size,
        steps=epochs * steps,
        **_count_passes(experiment, job, losses, epochs, (count, steps * batch_size)),
        parameters=_count_trained(experiment, name, stage, losses),
        optimizer=_describe_optimizer(stage),
        reported=_describe_choice(stage, data, epochs),
        losses={get_loss_title(loss): _describe_weight(use) for loss, use in stage.losses.items()},
        temperature=next((loss.temperature for loss in losses if isinstance(loss, KL)), None),
        accumulate=stage.optimizer.accumulate,
        starts_from=stage.starts_from,
        usage=read_usage(folder.timing, epochs),
    )


def _count_passes(
    experiment: Experiment, job: Job, losses: Sequence[Loss], epochs: int, images: tuple[int, int]
) -> dict[str, Any]:
    """Count images through student and teacher, by field of `TrainingBudget`; images: N, and those of an epoch."""
    config, stage = experiment.config, job.stage
    count, shown = images
    frozen = uses_frozen_features(stage, experiment.find_layout(experiment.find_network(job.name)), losses)
    asking = [loss.first_pass for loss in losses if loss.first_pass != "none"]  # an epoch before the first step
    filled = shown if "both" in asking else 0
    computed = count * (min(config.teacher.cached_views, epochs) if config.teacher.cached_views else epochs)
    trained = 0 if frozen else epochs * shown
    of_teacher = stage.starts_from == TEACHER.method and config.shortcut.pairs == "same"  # its features are known
    live = computed if frozen else trained + (shown if asking else 0)
    needed = job.name != TEACHER and (
        any(loss.needs_teacher for loss in losses) or stage.starts_from == TEACHER.method
    )
    cached = needed and config.teacher.cached_views > 0 and not any(loss.needs_maps for loss in losses)
    return {
        "passes": trained,
        "forward_only": filled if not frozen else 0 if of_teacher else computed,
        "frozen": frozen,
        "teacher_passes": 0 if not needed else count * config.teacher.cached_views if cached else live,
        "cached": cached,
    }


def _count_trained(experiment: Experiment, job: JobName, stage: Stage, losses: Sequence[Loss]) -> int:
    """Count the parameters that train, those of a loss instead of its classifier."""
    layout = experiment.find_layout(experiment.find_network(job))
    names = layout.find_part_names(stage.train, find_reading(layout, losses).places)[0]
    answering = [loss for loss in losses if loss.replaces_classifier]
    if not answering:
        return layout.count_values(names)
    head, teacher = f"{layout.structure.head}.", experiment.find_layout(experiment.config.teacher)
    beside = layout.count_values(name for name in names if not name.startswith(head))
    return beside + sum(_count_loss(loss, layout, teacher) for loss in answering)


def _count_loss(loss: Loss, student: Layout, teacher: Layout) -> int:
    sizes = Sizes(find_shapes(student, [loss]), find_shapes(teacher, [loss]))
    with torch.device("meta"):  # nothing is drawn
        loss.setup(sizes)
    return count_parameters(loss)


def _describe_part(stage: Stage) -> str:
    if stage.connector:
        return f"{stage.train} and connector"
    return f"{stage.train} through the teacher's classifier" if stage.goes_through else stage.train


def _describe_optimizer(stage: Stage) -> str:
    own = stage.optimizer
    words = f"{own.name} {own.lr:g} {own.schedule}"
    words += "" if own.ema is None else f", average {own.ema:g}"
    beside_head = stage.feature_lr is not None and stage.train != "head"
    return f"{words}, features {stage.feature_lr:g}" if beside_head else words


def _describe_choice(stage: Stage, data: TrainingData, epochs: int) -> str:
    if data.val is None or not stage.has_answers:
        return "last"
    few = None if stage.early_stopping is not None else stage.selection_epochs
    return f"best of the last {min(few or epochs, epochs)} by validation"


def _describe_weight(use: LossUse) -> str:
    rising = f" rising over {use.ramp_up} epochs" if use.ramp_up else ""
    return f"{use.weight:g}{rising}{' fading' if use.fade else ''}"
