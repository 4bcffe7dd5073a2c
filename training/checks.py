"""What is looked at before a phase writes anything: networks, taps, sizes, and what its jobs need."""

from __future__ import annotations

from errors import UserError, warn
from losses.loss import Loss
from models.layout import Layout
from models.taps import INPUT
from models.zoo import count_parameters
from settings.loss_options import make_loss, title_of
from settings.stages import Part
from training.batch_statistics import check_batch_statistics, tell_of_first_statistics
from training.experiment import Experiment
from training.job_name import TEACHER, needs, phase_of, trains_teacher
from training.lengths import check_lengths
from training.memory import check_batch, check_losses, check_views
from training.phases import Job
from training.reading import find_reading, find_shapes
from training.teacher import check_teacher, check_training, is_given

MEASURES = (
    "loss",
    "top1",
    "val",
    "test",
    "epoch",
    "learning",
    "cosine",
    "cka",
    "explained",
)  # how names of measures begin


def check(phase: str, experiment: Experiment, jobs: list[Job], fresh: bool = False) -> None:
    """Raise `UserError`, before anything is written, if what a phase needs is not there or does not fit."""
    config = experiment.config
    _check_phase(phase, experiment, jobs)
    _check_networks(experiment)
    for job in jobs:
        _check_losses(experiment, job)
        _check_sizes(experiment, job)
    if any(job.name != TEACHER for job in jobs):
        check_views(experiment)
    if config.teacher.checkpoint is not None and config.teacher.init is not None:
        raise UserError("teacher.checkpoint is a trained teacher and teacher.init starts one: give one of them")
    if phase == "teacher" and config.teacher.checkpoint is not None:
        raise UserError(
            "teacher.checkpoint names a trained teacher: remove it to train one, or go on with --phase crd"
        )
    if phase in ("teacher", "all"):
        check_training(experiment)
    if phase in ("crd", "kd", "baselines") or (phase == "all" and is_given(experiment)):
        check_teacher(experiment, renewed=fresh and phase == "all")
    for method in dict.fromkeys(job.name.method for job in jobs if job.name != TEACHER):
        _check_trained(experiment, method)
    if phase != "teacher":
        _check_sources(experiment, jobs)


def _check_phase(phase: str, experiment: Experiment, jobs: list[Job]) -> None:
    if phase != "teacher" and not experiment.config.methods:
        raise UserError("methods: none is named; name some, for example --set methods=[kd,two_stage]")
    if not jobs:
        kinds = {"crd": "more than one stage", "kd": "more than one stage", "baselines": "one stage"}
        raise UserError(f"--phase {phase}: no method of this run has {kinds[phase]}")


def _check_networks(experiment: Experiment) -> None:
    """Look at teacher and student on the meta device; a student larger than its teacher gets a warning.

    Raises:
        UserError: networks or taps that do not work.
    """
    config, sizes = experiment.config, []
    for title, network in (("teacher", config.teacher), ("student", config.student)):
        try:
            sizes.append(count_parameters(experiment.layout(network).model))
        except UserError as error:
            raise UserError(f"{title}: {error}") from None
    if sizes[1] > sizes[0]:
        warn(
            f"the student {config.student.arch} has {sizes[1]:,} parameters, more than its teacher "
            f"{config.teacher.arch} with {sizes[0]:,}: are teacher.arch and student.arch the wrong way round?"
        )


def make_losses(experiment: Experiment, job: Job) -> dict[str, Loss]:
    """Return the losses of a job by the key of each."""
    return {
        f"{job.name.key}.losses.{name}": make_loss(
            f"{job.name.key}.losses.{name}", name, use.options, experiment.config.losses
        )
        for name, use in job.stage.losses.items()
    }


def _check_losses(experiment: Experiment, job: Job) -> None:
    """Raise `UserError` where a loss needs what the stage, the networks or the images do not give."""
    config, losses = experiment.config, make_losses(experiment, job)
    titles = [title_of(name) for name in job.stage.losses]
    if len(set(titles)) < len(titles):
        raise UserError(
            f"{job.name.key}.losses: two losses would be called {', '.join(titles)}: name one by `class`"
        )
    taken = [title for title in titles if title.partition("_")[0] in MEASURES]
    if taken:
        raise UserError(
            f"{job.name.key}.losses: {taken[0]} is the name of a measure, give the loss another one: "
            f"losses: {{NAME: {{class: package.module:Class}}}}"
        )
    own, teacher = experiment.layout(experiment.network_of(job.name)), experiment.layout(config.teacher)
    for key, loss in losses.items():
        if job.name == TEACHER and loss.needs_teacher:
            raise UserError(f"{key}: the teacher has no teacher, use losses of labels alone")
        if job.stage.train == "features" and (loss.needs_logits or loss.replaces_classifier):
            raise UserError(
                f"{key}: train: features leaves the classifier alone, and this loss needs its logits: "
                "give the loss to the stage that trains the classifier, such as stage2: {losses: ...}"
            )
        if job.stage.upweight_errors_of is not None and not loss.takes_weights:
            raise UserError(
                f"{key}: upweight_errors_of weights no losses from a bank: use negatives: batch, or regression"
            )
        if loss.needs_classifier:
            _check_vectors(key, own, teacher)
        if loss.needs_maps and job.stage.train == "head":
            raise UserError(f"{key}: it trains features through maps, and train: head freezes them")
        _check_taps(f"{key}: {'teacher' if trains_teacher(config, job.name) else 'student'}", own, loss)
        if loss.needs_teacher:
            _check_taps(f"{key}: teacher", teacher, loss)
    weighted = [loss for loss, use in zip(losses.values(), job.stage.losses.values(), strict=True) if use.weight]
    _check_gradients(job.name.key, job.stage.train, weighted)
    if job.stage.images == "balanced" and experiment.data.balanced is None:
        raise UserError(
            f"{job.name.key}.images: balanced needs a planted cue (shortcut.cue) and data.val_fraction > 0"
        )


def _check_gradients(key: str, train: Part, losses: list[Loss]) -> None:
    """Raise `UserError` where no loss of a stage gives what it trains a gradient."""
    if train == "features" and not any(loss.used_taps for loss in losses):
        raise UserError(f"{key}: train: features needs a loss that reads taps, such as crd or regression")
    if train != "features" and not any(loss.needs_logits or loss.replaces_classifier for loss in losses):
        raise UserError(
            f"{key}: train: {train} trains the classifier, and no loss reads its logits: add one that does, such "
            "as ce, or use train: features (a loss of your own says needs_logits = True)"
        )


def _check_taps(where: str, layout: Layout, loss: Loss) -> None:
    try:
        find_shapes(layout, [loss])
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _check_vectors(key: str, *layouts: Layout) -> None:
    for layout in layouts:
        if not layout.structure.reads_vector:
            raise UserError(f"{key}: it needs linear classifiers of vectors, which {layout.name} has not")


def _check_sizes(experiment: Experiment, job: Job) -> None:
    """Raise `UserError` where a job needs more of memory or disk than there is."""
    config, stage, data = experiment.config, job.stage, experiment.data
    key, batches = f"{job.name.key}.batch_size", job.batches(data)
    layout = experiment.layout(experiment.network_of(job.name))
    check_lengths(job.name.key, stage, batches)
    if stage.batch_size > len(data.train) and stage.images != "balanced":
        count = len(data.train)
        raise UserError(f"{key}={stage.batch_size}: there are {count} training images, use at most {count}")
    if stage.train != "head":
        check_batch_statistics(layout.model, key, stage.batch_size, config.data.image_size)
        check_batch(experiment, layout, key, stage.batch_size)
        if _has_random_weights(job, experiment):
            side = "teacher" if job.name == TEACHER else "student"
            tell_of_first_statistics(layout.model, side, job.name.key, stage.epochs * batches)
    check_losses(experiment, make_losses(experiment, job), layout, stage.batch_size)


def _has_random_weights(job: Job, experiment: Experiment) -> bool:
    teacher, student = experiment.config.teacher, experiment.config.student
    if job.folder.finished or job.name.number > 1 or job.stage.starts_from is not None:
        return False
    if job.name == TEACHER:
        return teacher.weights is None and teacher.init is None and not is_given(experiment)
    return student.weights is None


def _check_trained(experiment: Experiment, method: str) -> None:
    """Raise `UserError` where a method leaves parameters of a new student at their initial values."""
    config = experiment.config
    stages = config.stages[method]
    if config.student.allow_untrained or stages[0].starts_from is not None or stages[0].train != "features":
        return
    layout = experiment.layout(config.student)
    trained: set[str] = set()
    taps: list[str] = []
    for number, stage in enumerate(stages, start=1):
        key = f"methods.{method}.stage{number}"
        used = {name: use.options for name, use in stage.losses.items() if use.weight}
        losses = [make_loss(key, name, options, config.losses) for name, options in used.items()]
        places = find_reading(layout, losses, pooled=True).places
        taps += places
        trained |= set(layout.part(stage.train, places)[0])
    left = layout.reached([]) - trained
    if left and len(stages) > 1:
        share = 100 * layout.count(left) / count_parameters(layout.model)
        raise UserError(
            f"student.taps {', '.join(dict.fromkeys(taps))}: no stage of {method} trains {share:.0f} % of "
            f"{config.student.arch}'s parameters: name a deeper tap, such as {layout.structure.head}{INPUT}, "
            "or say student.allow_untrained=true"
        )


def _check_sources(experiment: Experiment, jobs: list[Job]) -> None:
    folder, coming = experiment.folder, [job.name for job in jobs]
    for job in jobs:
        for source in needs(experiment.config, job.name):
            if source not in coming and not folder.job(source).finished:
                folder.job(source).refuse_lacking()
                raise UserError(
                    f"{job.name.title} needs {source.short}, which is not finished in {folder.path}: "
                    f"run --phase {phase_of(source)} first, or all"
                )
