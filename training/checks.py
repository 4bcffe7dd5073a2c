"""Checks of a phase's jobs before anything is written."""

from __future__ import annotations

import torch
from torch import nn

from dataset.views.prefetch import check_workers
from errors import UserError, warn
from losses.loss import Loss
from models.layout import Layout
from models.norms import DEFAULT_MOMENTUM, NOTABLE_SHARE, compute_share_left
from models.taps import INPUT
from models.zoo import count_parameters
from settings.loss_options import get_loss_title, make_loss
from settings.own_code import is_own
from settings.stages import LossUse, Stage
from training import distributed
from training.experiment import Experiment
from training.job_name import TEACHER, find_phase, list_sources, uses_teacher_network
from training.memory import check_activations, check_cache_space, check_loss_memory
from training.own_network import check_outputs
from training.phases import Job
from training.reading import find_reading, find_shapes
from training.stepping import count_steps
from training.teacher import check_init, check_teacher, is_given

# how names of measures begin
MEASURES = ("loss", "top1", "val", "test", "epoch", "learning", "cosine", "cka", "explained")
FALL_TO_THE_END = ("cosine", "onecycle", "multistep")  # schedules that are stretched over all epochs


def check_phase(phase: str, experiment: Experiment, jobs: list[Job], fresh: bool = False) -> None:
    """Raise `UserError` if something that a phase needs is missing or does not fit."""
    config = experiment.config
    if phase != "teacher" and not config.methods:
        raise UserError("methods: none is named; name some, for example --set methods=[kd,two_stage]")
    if not jobs:
        kind = "one stage" if phase == "baselines" else "more than one stage"
        raise UserError(f"--phase {phase}: no method of this run has {kind}")
    if experiment.data.uses_workers:
        batch = min(max(job.stage.batch_size for job in jobs), len(experiment.data.train))
        check_workers(config.data.workers, batch * 3 * config.data.image_size**2)
    _check_networks(experiment)
    for job in jobs:
        losses = make_losses(experiment, job)
        _check_losses(experiment, job, losses)
        _check_sizes(experiment, job, losses)
    if any(job.name != TEACHER for job in jobs):
        check_cache_space(experiment)
    _check_teacher(phase, experiment, fresh)
    for method in dict.fromkeys(job.name.method for job in jobs if job.name != TEACHER):
        _check_trained(experiment, method)
    if phase != "teacher":
        _check_sources(experiment, jobs)


def _check_teacher(phase: str, experiment: Experiment, fresh: bool) -> None:
    settings = experiment.config.teacher
    if settings.checkpoint is not None and settings.init is not None:
        raise UserError("teacher.checkpoint is a trained teacher and teacher.init starts one: give one of them")
    if phase == "teacher" and settings.checkpoint is not None:
        raise UserError(
            "teacher.checkpoint names a trained teacher: remove it to train one, or go on with --phase crd"
        )
    if phase in ("teacher", "all"):
        check_init(experiment)
    if phase in ("crd", "kd", "baselines") or (phase == "all" and is_given(experiment)):
        check_teacher(experiment, renewed=fresh and phase == "all")


def _check_networks(experiment: Experiment) -> None:
    """Check both networks on the meta device; warn of a student that is larger."""
    config, sizes = experiment.config, []
    for title, network in (("teacher", config.teacher), ("student", config.student)):
        try:
            sizes.append(count_parameters(experiment.find_layout(network).model))
        except UserError as error:
            raise UserError(f"{title}: {error}") from None
        if is_own(network.arch):
            check_outputs(experiment, network, title)
    if sizes[1] > sizes[0]:
        warn(
            f"the student {config.student.arch} has {sizes[1]:,} parameters, more than its teacher "
            f"{config.teacher.arch} with {sizes[0]:,}: are teacher.arch and student.arch the wrong way round?"
        )


def make_losses(experiment: Experiment, job: Job) -> dict[str, Loss]:
    """Return the losses of a job by the config key of each."""
    losses, shared = {f"{job.name.key}.losses.{name}": name for name in job.stage.losses}, experiment.config.losses
    return {key: make_loss(key, name, job.stage.losses[name].options, shared) for key, name in losses.items()}


def _check_losses(experiment: Experiment, job: Job, losses: dict[str, Loss]) -> None:
    """Check that every loss gets what it needs."""
    key, stage = job.name.key, job.stage
    titles = [get_loss_title(name) for name in stage.losses]
    if len(set(titles)) < len(titles):
        raise UserError(f"{key}.losses: two losses would be called {', '.join(titles)}: name one by `class`")
    taken = [title for title in titles if title.partition("_")[0] in MEASURES]
    if taken:
        raise UserError(
            f"{key}.losses: {taken[0]} is the name of a measure, give the loss another one: "
            f"losses: {{NAME: {{class: package.module:Class}}}}"
        )
    pairs = list(zip(losses.items(), stage.losses.values(), strict=True))
    for (loss_key, loss), use in pairs:
        _check_loss(experiment, job, loss_key, loss, use)
    if stage.goes_through:
        _check_linear(experiment, job, key)
    weighted = [loss for (_, loss), use in pairs if use.weight]
    _check_gradients(key, stage, weighted)
    own = experiment.find_layout(experiment.find_network(job.name))
    if own.frozen:  # it may be all of the part
        own.find_part_names(stage.train, find_reading(own, weighted).places)
    config = experiment.config
    if stage.upweight_errors_of is not None and config.data.mix in ("mixup", "cutmix"):
        raise UserError(
            f"{key}.upweight_errors_of weights single images, and data.mix={config.data.mix} mixes two: "
            "use data.mix=none or erasing, or remove the key"
        )
    if stage.images == "balanced" and experiment.data.balanced is None:
        raise UserError(f"{key}.images: balanced needs a planted cue (shortcut.cue) and data.val_fraction > 0")


def _check_loss(experiment: Experiment, job: Job, key: str, loss: Loss, use: LossUse) -> None:
    config, stage, network = experiment.config, job.stage, experiment.find_network(job.name)
    own, teacher = experiment.find_layout(network), experiment.find_layout(config.teacher)
    if job.name == TEACHER and loss.needs_teacher:
        raise UserError(f"{key}: the teacher has no teacher, use losses of labels alone")
    reads_own = loss.needs_logits and use.through == "student" and not stage.connector
    if stage.train == "features" and (reads_own or loss.replaces_classifier):
        raise UserError(
            f"{key}: train: features leaves the classifier alone, and this loss needs its logits: give the "
            "loss to the stage that trains the classifier, such as stage2: {losses: ...}, or set through: teacher"
        )
    if use.through == "teacher" and not loss.needs_logits:
        raise UserError(f"{key}: through: teacher is for losses that read logits, remove it")
    if loss.needs_connector and not network.has_connector:
        raise UserError(f"{key}: it needs a student with a connector, set connector: true in its stage")
    if stage.upweight_errors_of is not None and not loss.uses_weights:
        raise UserError(
            f"{key}: upweight_errors_of weights no losses from a bank: use negatives: batch, or regression"
        )
    if loss.needs_classifier:
        _check_linear(experiment, job, key)
    if loss.needs_maps and stage.train == "head":
        raise UserError(f"{key}: it trains features through maps, and train: head freezes them")
    _check_taps(f"{key}: {'teacher' if uses_teacher_network(config, job.name) else 'student'}", own, loss)
    if loss.needs_teacher:
        _check_taps(f"{key}: teacher", teacher, loss)


def _check_linear(experiment: Experiment, job: Job, key: str) -> None:
    """Check that both networks end in a linear classifier of a vector."""
    networks = (experiment.find_network(job.name), experiment.config.teacher)
    for layout in map(experiment.find_layout, networks):
        if not layout.structure.reads_vector:
            raise UserError(f"{key}: it needs linear classifiers of vectors, which {layout.name} has not")


def _check_gradients(key: str, stage: Stage, losses: list[Loss]) -> None:
    """Check that some loss gives what the stage trains a gradient."""
    train, reads_logits = stage.train, any(loss.needs_logits or loss.replaces_classifier for loss in losses)
    if train == "features" and not (stage.has_answers and reads_logits or any(loss.used_taps for loss in losses)):
        raise UserError(f"{key}: train: features needs a loss that reads taps, such as crd or regression")
    if train != "features" and not reads_logits:
        raise UserError(
            f"{key}: train: {train} trains the classifier, and no loss reads its logits: add one that does, such "
            "as ce, or use train: features (a loss of your own says needs_logits = True)"
        )


def _check_taps(where: str, layout: Layout, loss: Loss) -> None:
    try:
        find_shapes(layout, [loss])
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _check_sizes(experiment: Experiment, job: Job, losses: dict[str, Loss]) -> None:
    """Check a job's batches, its number of steps and its memory."""
    stage, count = job.stage, len(experiment.data.train)
    section, batches = job.name.key, job.count_batches(experiment.data)
    key, size = f"{section}.batch_size", stage.batch_size
    layout = experiment.find_layout(experiment.find_network(job.name))
    check_lengths(section, stage, batches)
    if size > count and stage.images != "balanced":
        raise UserError(f"{key}={size}: there are {count} training images, use at most {count}")
    if stage.train != "head":
        _check_batch_norm(layout.model, key, size, experiment.config.data.image_size)
        check_activations(experiment, layout, key, size)
        if _has_random_weights(job, experiment):
            side = "teacher" if job.name == TEACHER else "student"
            _warn_slow_batch_norm(layout.model, side, section, stage.epochs * batches)
    check_loss_memory(experiment, losses, layout, size)


def check_lengths(key: str, stage: Stage, batches: int) -> None:
    """Check options that count steps; warn of a length that does not suit them.

    Args:
        key: of the config's section on the stage.
        batches: an epoch.

    Raises:
        UserError: steps of more batches than an epoch has.
    """
    optimizer, epochs = stage.optimizer, stage.epochs
    if optimizer.accumulate > batches:
        raise UserError(
            f"{key}.optimizer.accumulate={optimizer.accumulate}: an epoch has {batches} batches, use no more"
        )
    steps = epochs * count_steps(batches, optimizer.accumulate)
    if optimizer.ema is not None and 1 / (1 - optimizer.ema) > steps:
        warn(
            f"{key}.optimizer.ema={optimizer.ema:g} averages over about {1 / (1 - optimizer.ema):,.0f} steps, but "
            f"there are {steps:,}: the first steps dominate the average, use a smaller value"
        )
    if stage.early_stopping is not None and optimizer.schedule in FALL_TO_THE_END:
        warn(
            f"{key}.early_stopping with schedule: {optimizer.schedule}, which falls over all {epochs} epochs: "
            "training that stops earlier ends at a high rate (use constant or exponential)"
        )


@torch.no_grad()
def _check_batch_norm(model: nn.Module, key: str, batch_size: int, image_size: int) -> None:
    """Check that batch norm gets more than one value a channel."""
    processes = distributed.world_size()
    if batch_size // processes > 1:
        return
    try:
        if batch_size >= processes:
            model.train()(torch.empty(1, 3, image_size, image_size, device="meta"))
            return
    except ValueError:  # batch norm of one value a channel
        pass
    finally:
        model.eval()
    enough = 2 * processes
    raise UserError(
        f"{key}={batch_size}: batch statistics need more than one value a channel, use {enough} or more"
    )


def _warn_slow_batch_norm(model: nn.Module, side: str, section: str, batches: int) -> None:
    """Warn where training is too short for batch norm's running statistics."""
    left = compute_share_left(model, batches)
    if left > NOTABLE_SHARE:
        warn(
            f"{side}.arch: its batch norm follows slowly, {left:.1%} of what tests normalise by are its first "
            f"values still after {batches:,} batches ({section}): set {side}.norm_momentum={DEFAULT_MOMENTUM:g}"
        )


def _has_random_weights(job: Job, experiment: Experiment) -> bool:
    """Return whether an unfinished job begins from random weights."""
    teacher, student = experiment.config.teacher, experiment.config.student
    if job.folder.is_finished or job.name.number > 1 or job.stage.starts_from is not None:
        return False
    if job.name == TEACHER:
        return teacher.weights is None and teacher.init is None and not is_given(experiment)
    return student.weights is None


def _check_trained(experiment: Experiment, method: str) -> None:
    """Check that a method's stages train every parameter of a new student."""
    config = experiment.config
    stages, student = config.stages[method], config.student
    if len(stages) == 1 or student.allow_untrained or stages[0].starts_from or stages[0].train != "features":
        return
    layout = experiment.find_layout(student)
    trained: set[str] = set()
    taps: list[str] = []
    for number, stage in enumerate(stages, start=1):
        key, uses = f"methods.{method}.stage{number}", stage.losses.items()
        losses = [make_loss(key, name, use.options, config.losses) for name, use in uses if use.weight]
        places = find_reading(layout, losses, pooled=True).places
        taps += places
        trained |= set(layout.find_part_names(stage.train, places)[0])
    if any(stage.has_answers and stage.train == "features" for stage in stages):
        trained |= set(layout.find_part_names("head")[0])  # it comes from the teacher's classifier
    if left := layout.find_reached([]) - trained - layout.frozen:
        share = 100 * layout.count_values(left) / count_parameters(layout.model)
        raise UserError(
            f"student.taps {', '.join(dict.fromkeys(taps))}: no stage of {method} trains {share:.0f} % of "
            f"{student.arch}'s parameters: name a deeper tap, such as {layout.structure.head}{INPUT}, "
            "or say student.allow_untrained=true"
        )


def _check_sources(experiment: Experiment, jobs: list[Job]) -> None:
    """Check that the jobs that others need are finished or come first."""
    folder, coming = experiment.folder, [job.name for job in jobs]
    for job in jobs:
        for source in list_sources(experiment.config, job.name):
            if source not in coming and not folder.get_job(source).is_finished:
                folder.get_job(source).refuse_missing_files()
                raise UserError(
                    f"{job.name.title} needs {source.short}, which is not finished in {folder.path}: "
                    f"run --phase {find_phase(source)} first, or all"
                )
