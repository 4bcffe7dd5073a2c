"""The setup of a job (objective, images, plan), and its training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import nn

from dataset.prepare import TrainingData
from errors import MachineError, warn
from losses.loss import Loss, Sizes
from models.captured import capture_passes, release_passes
from models.checkpoint import load_weights, save
from models.compiling import compile_blocks
from models.connector import ConnectedStudent
from models.heads import find_classifier
from models.layout import Layout
from models.machine import Machine
from models.taps import read_head_inputs
from settings.loss_options import get_loss_title, make_loss
from settings.stages import Stage
from training import distributed
from training.alignment import AlignmentEvaluator, average_alignment
from training.checkpointing import Checkpointer
from training.early_stopping import make_stopping
from training.engine import TrainingPlan, fit, seed_everything
from training.evaluation import Measures, evaluate_splits, find_best_test_epoch
from training.experiment import Experiment
from training.features import FrozenFeatures, ViewCache
from training.image_weights import weigh_images
from training.job_name import TEACHER, JobName, count_earlier_epochs, find_start, get_stage
from training.pace import Pace
from training.reading import find_reading, find_shapes
from training.run.checkpointer import JobCheckpointer
from training.run.job_folder import PROJECTIONS
from training.stage import StageObjective, StageStudent
from training.teacher import ensure_teacher
from training.teacher_outputs import FEATURES, FrozenTeacher, open_teacher

COMPILING = ("torch._dynamo", "torch._inductor", "triton")  # an error from these means that compiling failed


@dataclass(frozen=True)
class TrainingSetup:
    """A job's objective, the images that it trains on, and its plan."""

    objective: StageObjective
    data: TrainingData
    plan: TrainingPlan

    def compile_or_capture(self, machine: Machine) -> None:
        """Compile the network's blocks, or capture its passes, if the machine is set to.

        Nothing is captured, with a warning, if gradients are accumulated, which a graph would overwrite, or if
        workers load batches, because their thread allocates GPU memory during the capture.
        """
        tapped = self.objective.tapped
        if machine.compile:
            compile_blocks(tapped.model, tapped.taps)
        if machine.capture and self.plan.optimizer.accumulate > 1:
            warn("cuda_graphs=true is ignored with several batches a step (optimizer.accumulate)")
        elif machine.capture and self.data.uses_workers:
            warn("cuda_graphs=true is ignored with data.workers, which use the GPU from another thread")
        elif machine.capture:
            capture_passes(tapped)

    def fit(self, machine: Machine, checkpointer: Checkpointer, pace: Pace | None = None) -> list[Measures]:
        """Train by `training.engine.fit`, after `compile_or_capture`.

        Raises:
            UserError: as `fit`.
            MachineError: blocks that torch cannot compile, or passes that a GPU cannot capture.
        """
        self.compile_or_capture(machine)
        try:
            return fit(self.objective, self.data, self.plan, machine, checkpointer, pace)
        except RuntimeError as error:
            if machine.compile and type(error).__module__.startswith(COMPILING):
                reason = str(error).strip().partition("\n")[0]
                raise MachineError(
                    f"compile=true: torch cannot compile it ({reason}): use compile=false"
                ) from error
            raise
        finally:
            release_passes(self.objective.tapped)


def train_stage(experiment: Experiment, job: JobName, pace: Pace | None = None) -> None:
    """Train one job to its end and write its files. `pace`: predicts the time left."""
    folder, prepared = experiment.folder.get_job(job), make_setup(experiment, job)
    checkpointer = JobCheckpointer(folder, experiment.config.checkpoint_minutes)
    history, objective = prepared.fit(experiment.machine, checkpointer, pace), prepared.objective
    result: dict[str, Any] = {"source": "trained"} if job == TEACHER else {}
    result |= summarise_stop(history, prepared.plan)
    trains_classifier = objective.student.evaluator is None
    if trains_classifier:
        result |= evaluate_splits(objective.model, prepared.data, experiment.machine)
        result |= find_best_test_epoch(history)
    else:
        result |= objective.measure()
    if distributed.rank() == 0:
        projections = {} if trains_classifier else objective.collect_projections()
        if projections:
            save(folder.path / PROJECTIONS, projections)
        folder.finish(objective.model, result)
    distributed.wait_for_all()


def summarise_stop(history: Sequence[Measures], plan: TrainingPlan) -> dict[str, int | str]:
    """Return the number of epochs and the reason of the end, for result.json."""
    return {"epochs": len(history), "ended_by": "plateau" if len(history) < plan.epochs else "epochs"}


def make_setup(experiment: Experiment, job: JobName) -> TrainingSetup:
    """Return the setup of a job.

    Raises:
        UserError: a job that this one builds on is not finished, or does not fit.
    """
    stage, config, machine = get_stage(experiment.config, job), experiment.config, experiment.machine
    experiment = replace(experiment, data=select_images(experiment, job))
    layout = experiment.find_layout(experiment.find_network(job))
    losses = {
        get_loss_title(name): make_loss(f"{job.key}.losses.{name}", name, use.options, config.losses)
        for name, use in stage.losses.items()
    }
    own = list(losses.values())
    frozen = uses_frozen_features(stage, layout, own)
    borrows = stage.starts_from == TEACHER.method or stage.connector or stage.goes_through
    needs_teacher = borrows or any(loss.needs_teacher for loss in own)
    teacher = open_teacher(experiment, job, stage, own, sees_images=not frozen) if needs_teacher else None
    evaluator = None
    if not stage.has_answers and teacher is not None:
        evaluator = _make_evaluator(experiment, own, layout, teacher)
    weights = weigh_images(experiment, job, stage)
    shapes = find_shapes(experiment.find_layout(config.teacher), own) if teacher else {}
    sizes = Sizes(find_shapes(layout, own), shapes, experiment.data.train.labels, distributed)
    seed = config.teacher.seed if job.seed is None else job.seed
    model = _load_start(experiment, job, stage, seed, teacher)
    seed_everything(seed, job.number)
    for loss in own:
        loss.setup(sizes)
        loss.to(machine.device)
    projector = _make_projector(experiment, layout) if stage.goes_through else None
    features = _freeze_features(experiment, stage, model, teacher) if frozen else None
    weighted = [loss for loss, use in zip(own, stage.losses.values(), strict=True) if use.weight]
    reading, trained = find_reading(layout, own), find_reading(layout, weighted)
    if projector is not None:
        reading, trained = (one.add_pooled(FEATURES, layout.find_place(FEATURES)) for one in (reading, trained))
    part = layout.find_part(model, stage.train, trained.places)
    student = StageStudent(model, part, reading, features, evaluator, projector)
    objective = StageObjective(student, teacher, losses, stage, experiment.data, machine, weights)
    return TrainingSetup(
        objective, experiment.data, _make_plan(experiment, job, stage, seed, evaluator is not None)
    )


def select_images(experiment: Experiment, job: JobName) -> TrainingData:
    """Return the images that a job trains and is measured on."""
    if job == TEACHER:
        return experiment.data.select_teacher_data()
    stage = get_stage(experiment.config, job)
    data = experiment.data.select_balanced_data() if stage.images == "balanced" else experiment.data
    return replace(data, draws_classes=True) if stage.sampling == "classes" else data


def uses_frozen_features(stage: Stage, layout: Layout, losses: Sequence[Loss]) -> bool:
    """Return whether a stage trains on frozen features, computed once for each view."""
    if stage.train != "head" or not layout.structure.reads_vector:
        return False
    reading = find_reading(layout, losses)
    return not reading.maps and set(reading.places) <= {layout.find_place(FEATURES)}


def _make_projector(experiment: Experiment, student: Layout) -> nn.Linear:
    """Return a linear map from the student's features to the size of the teacher's."""
    teacher = experiment.find_layout(experiment.config.teacher)
    own, wanted = (layout.find_shape(layout.find_place(FEATURES))[0] for layout in (student, teacher))
    return experiment.machine.place(nn.Linear(own, wanted))


def _make_evaluator(
    experiment: Experiment, losses: list[Loss], layout: Layout, teacher: FrozenTeacher
) -> AlignmentEvaluator:
    config, data = experiment.config, experiment.data
    own, theirs = (
        find_reading(one, losses, pooled=True) for one in (layout, experiment.find_layout(config.teacher))
    )
    images = data.held_out or data.test  # test images only report, they decide nothing
    return AlignmentEvaluator(images, teacher.network, own, theirs, experiment.machine, config.data.seed)


def _load_start(
    experiment: Experiment, job: JobName, stage: Stage, seed: int, teacher: FrozenTeacher | None
) -> nn.Module:
    """Return the network that a job starts from, on the device."""
    before, network = find_start(experiment.config, job), experiment.find_network(job)
    is_connected = network.has_connector
    if job == TEACHER:
        model = _make_teacher(experiment)
    elif before:
        source = experiment.find_network(before[0])
        model = experiment.load_trained(source, experiment.folder.get_job(before[0]))
        is_connected = is_connected and not source.has_connector
        if is_connected:
            seed_everything(seed, job.number)
            model = experiment.machine.place(ConnectedStudent(model, experiment.find_connector_sizes()))
    elif stage.starts_from == TEACHER.method:
        model = ensure_teacher(experiment)
    else:
        model = experiment.build_student(seed, network)
    if is_connected and teacher is not None:  # only when the connector is new
        find_classifier(model)[1].load_state_dict(teacher.classifier.state_dict())
    if stage.reset_head:
        seed_everything(seed, job.number)
        find_classifier(model)[1].reset_parameters()
    return model


def _make_teacher(experiment: Experiment) -> nn.Module:
    settings = experiment.config.teacher
    seed_everything(settings.seed)
    model = experiment.build(settings, pretrained=settings.init is None)
    if settings.init is not None:
        load_weights(model, settings.init, settings.arch)
    return experiment.machine.place(model)


def _freeze_features(
    experiment: Experiment, stage: Stage, model: nn.Module, teacher: FrozenTeacher | None
) -> FrozenFeatures:
    config, data, machine = experiment.config, experiment.data, experiment.machine
    is_same = stage.starts_from == TEACHER.method and config.shortcut.pairs == "same"
    if is_same and teacher is not None:  # the student starts as the teacher: take its features
        return FrozenFeatures(model, data, machine, lambda batch: teacher(batch).taps[FEATURES])
    views = config.teacher.cached_views
    keep = views if 0 < views < stage.epochs else 1  # keep all views if they repeat
    return FrozenFeatures(
        model, data, machine, ViewCache(partial(read_head_inputs, model, machine=machine), data, keep)
    )


def _make_plan(experiment: Experiment, job: JobName, stage: Stage, seed: int, aligns: bool) -> TrainingPlan:
    """Return a job's plan. `aligns`: whether alignment is measured in place of accuracy."""
    config = experiment.config
    stops_early = stage.early_stopping is not None
    return TrainingPlan(
        stage.epochs,
        stage.batch_size,
        stage.optimizer,
        seed,
        first_epoch=count_earlier_epochs(config, job),
        views=0 if job == TEACHER else config.teacher.cached_views,
        candidates=0 if stops_early else stage.selection_epochs or 0,
        early_stopping=make_stopping(stage.early_stopping, average_alignment if aligns else None),
        rate_key=f"{job.key}.optimizer.lr",
        name=job.short,
    )
