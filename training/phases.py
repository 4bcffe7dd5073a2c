"""What each `--phase` trains, what it needs first, and what it would do (`--dry-run`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from configs.reading import to_yaml
from configs.schema import Config
from configs.stages import ALIGNED, CRD, KD
from dataset.contact_sheet import write_contact_sheet
from dataset.loader import steps_per_epoch
from dataset.prepare import TrainingData
from errors import UserError, warn
from models.parts import share_of, untrained_by_both
from models.structure import reads_features
from models.taps import TappedModel, check_order, default_deep_tap, default_taps
from models.zoo import count_parameters
from training import distributed
from training.baselines import train_baseline
from training.batch_statistics import check_batch_statistics, tell_of_first_statistics
from training.board import write_board
from training.claim import with_dependents
from training.crd import train_stage1
from training.experiment import Experiment
from training.job_folder import JobFolder
from training.job_name import TEACHER, JobName, Settings, baseline, config_of, needs, stage1_of, stage2
from training.kd import train_stage2
from training.lengths import check_lengths
from training.memory import Followed, bank_bytes, cache_bytes, check_alignment, check_batch, check_views
from training.run_folder import RunFolder
from training.stepping import steps_of
from training.teacher import check_teacher, check_training, is_given, train_teacher


@dataclass(frozen=True)
class Job:
    """One training of one network."""

    name: JobName
    folder: JobFolder
    train: Callable[[Experiment], None]
    epochs: int
    settings: Settings
    balanced: bool = False  # trains on the balanced images

    def batches(self, data: TrainingData) -> int:
        """Of an epoch."""
        images = data.balanced if self.balanced and data.balanced else data.train
        return steps_per_epoch(len(images), self.settings.batch_size)


def jobs_of(phase: str, config: Config, folder: RunFolder) -> list[Job]:
    """The trainings of a phase, in the order in which they depend on each other."""
    teacher = config.teacher
    jobs = []
    if phase in ("teacher", "all"):
        jobs.append(Job(TEACHER, folder.teacher, train_teacher, teacher.epochs, teacher))
    for seed in config.seeds:
        students = {
            name: job for name, job in _students(config, folder, seed).items() if phase in _PHASES_OF[name.kind]
        }
        jobs += [students[name] for name in _in_order(config, list(students))]
    return jobs


_PHASES_OF = {"stage1": ("crd", "all"), "stage2": ("kd", "all"), "baseline": ("baselines", "all")}


def _students(config: Config, folder: RunFolder, seed: int) -> dict[JobName, Job]:
    jobs: dict[JobName, Job] = {}
    for variant in ("", *config.variants):
        name, own = stage1_of(config, seed, variant), config.variant(variant) if variant else config
        if name not in jobs:
            jobs[name] = _stage(train_stage1, name, variant, folder, own.crd)
        jobs[stage2(seed, variant)] = _stage(train_stage2, stage2(seed, variant), variant, folder, own.kd)
    for method in config.end_to_end:
        name, train = baseline(seed, method), partial(train_baseline, name=method, seed=seed)
        own = config.baseline(method)
        jobs[name] = Job(name, folder.job(name), train, own.baseline_epochs, own.baselines)
    return jobs


def _stage(
    train: Callable[[Experiment, int], None], name: JobName, variant: str, folder: RunFolder, settings: CRD | KD
) -> Job:
    seed, balanced = name.seed or 0, isinstance(settings, KD) and settings.images == "balanced"

    def run(experiment: Experiment) -> None:
        train(experiment.of_variant(variant), seed)

    return Job(name, folder.job(name), run, settings.epochs, settings, balanced)


def _in_order(config: Config, names: list[JobName]) -> list[JobName]:
    """The same names, each after those that it needs; stage 1 first, otherwise as they were."""
    ordered: list[JobName] = []
    waiting = sorted(names, key=lambda name: name.kind != "stage1")
    while waiting:
        free = [name for name in waiting if not set(needs(config, name)) & set(waiting)]
        if not free:
            labels = ", ".join(name.label for name in waiting)
            raise UserError(f"{labels} wait for each other: look at kd.teacher_head and errors_of")
        ordered.append(free[0])
        waiting.remove(free[0])
    return ordered


def check(phase: str, experiment: Experiment, fresh: bool = False) -> None:
    """Raise `UserError`, before anything is written, if what a phase needs is not there or does not fit."""
    config = experiment.config
    _check_sizes(experiment, jobs_of(phase, config, experiment.folder), *_check_networks(experiment))
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
    if phase in ("crd", "kd", "all"):
        for variant in ("", *config.variants):
            _check_trained(experiment.of_variant(variant))
    if phase != "teacher":
        _check_sources(phase, experiment)


def _check_networks(experiment: Experiment) -> tuple[TappedModel, TappedModel]:
    """Teacher and student on the meta device; a student larger than its teacher gets a word.

    Raises:
        UserError: networks or taps that do not work.
    """
    config, tapped = experiment.config, []
    for title, network in (("teacher", config.teacher), ("student", config.student)):
        try:
            model = experiment.build_checked(network)
            taps = network.taps or default_taps(model, config.data.image_size)
            check_order(model, taps, config.data.image_size)
        except UserError as error:
            raise UserError(f"{title}: {error}") from None
        tapped.append(TappedModel(model, taps))
    _check_vectors(config, tapped)
    sizes = [count_parameters(model) for model in tapped]
    if sizes[1] > sizes[0]:
        warn(
            f"the student {config.student.arch} has {sizes[1]:,} parameters, more than its teacher "
            f"{config.teacher.arch} with {sizes[0]:,}: are teacher.arch and student.arch the wrong way round?"
        )
    return tapped[0], tapped[1]


def _check_vectors(config: Config, models: list[TappedModel]) -> None:
    """Raise `UserError` where a projector is asked for and a classifier reads no vector that it could give."""
    wanted = [name for name in ("", *config.variants) if _projects(config.variant(name) if name else config)]
    for model in models if wanted else ():
        if not reads_features(model.model, config.data.image_size):
            key = f"variants.{wanted[0]}.kd.head" if wanted[0] else "kd.head"
            name = type(model.model).__name__
            raise UserError(f"{key}: teacher needs linear classifiers of vectors, which {name} has not: use new")


def _projects(config: Config) -> bool:
    return config.kd.head == "teacher"


def _check_sizes(experiment: Experiment, jobs: list[Job], teacher: TappedModel, student: TappedModel) -> None:
    """Raise `UserError` where a job needs more of memory or disk than there is."""
    config = experiment.config
    networks = [Followed(tapped, config.data.image_size) for tapped in (teacher, student)]
    for job in jobs:
        own, key, size = config_of(config, job.name), f"{job.name.section}.batch_size", job.settings.batch_size
        batches = job.batches(experiment.data)
        check_lengths(job.name.section, job.settings, job.epochs, batches)
        if size > len(experiment.data.train) and not job.balanced:
            count = len(experiment.data.train)
            raise UserError(f"{key}={size}: there are {count} training images, use at most {count}")
        if job.name.kind != "stage2" or own.kd.train != "head":
            network = networks[job.name != TEACHER]
            model = network.model.model
            check_batch_statistics(model, key, size, config.data.image_size)
            check_batch(experiment, network, key, size)
            if _from_random_weights(job, experiment):
                side = "teacher" if job.name == TEACHER else "student"
                tell_of_first_statistics(model, side, job.name.section, job.epochs * batches)
        if _aligns(job, config):
            check_alignment(experiment, own.crd, networks, size)
    if any(job.name != TEACHER for job in jobs):
        check_views(experiment, networks[0])


def _aligns(job: Job, config: Config) -> bool:
    name = job.name
    return name.kind == "stage1" or (name.kind == "baseline" and config.method_of(name.of) in ALIGNED)


def _from_random_weights(job: Job, experiment: Experiment) -> bool:
    teacher, student = experiment.config.teacher, experiment.config.student
    if job.folder.finished or job.name.kind == "stage2":
        return False
    if job.name == TEACHER:
        return teacher.weights is None and teacher.init is None and not is_given(experiment)
    return student.weights is None


def _check_trained(experiment: Experiment) -> None:
    """Raise `UserError` where taps and stage 2 leave parameters of the student at their initial values."""
    config = experiment.config
    if config.student.allow_untrained or config.kd.features != "stage1":
        return
    model = experiment.build(config.student, pretrained=False)
    named = config.student.taps or default_taps(model, config.data.image_size)
    weights = (config.crd.lambda_penultimate, config.crd.lambda_last)
    taps = [tap for tap, weight in zip(named, weights, strict=True) if weight > 0]
    left = untrained_by_both(model, taps, config.kd.train, config.data.image_size)
    if left:
        where = "" if not experiment.variant else f" in variant {experiment.variant}"
        raise UserError(
            f"student.taps {', '.join(taps)}: with kd.train={config.kd.train}{where} neither stage trains "
            f"{100 * share_of(left, model):.0f} % of {config.student.arch}'s parameters: name a deeper tap, such "
            f"as {default_deep_tap(model)}, or say student.allow_untrained=true"
        )


def _check_sources(phase: str, experiment: Experiment) -> None:
    config, folder = experiment.config, experiment.folder
    jobs = jobs_of(phase, config, folder)
    if any(job.balanced for job in jobs) and experiment.data.balanced is None:
        raise UserError("kd.images: balanced needs a planted cue (shortcut.cue) and data.val_fraction > 0")
    coming = [job.name for job in jobs]
    for job in jobs:
        for source in needs(config, job.name):
            if source not in coming and not folder.job(source).finished:
                folder.job(source).refuse_lacking()
                raise UserError(_missing(source, job.name, folder))


def _missing(source: JobName, name: JobName, folder: RunFolder) -> str:
    if source.kind == "stage1":
        what = f"stage 1 of {source.of}" if source.of else "stage 1"
        return f"there is no finished {what} for seed {name.seed} in {folder.path}: run --phase crd first"
    return (
        f"{name.title} needs {source.label}, which is not finished in {folder.path}: "
        "run --phase baselines first, or all (a method must stand in baselines.methods)"
    )


def run_jobs(jobs: list[Job], experiment: Experiment) -> None:
    """Train what is not finished; a teacher that the config gives is not trained."""
    for job in jobs:
        if job.folder.finished:
            if distributed.rank() == 0:
                job.folder.drop_checkpoints()
            say(f"{job.name.title}: finished before, kept")
        elif not (job.name == TEACHER and is_given(experiment)):
            train_job(job, experiment)
            say(f"{job.name.title}: done, {_reached(job.folder)}, files in {job.folder.path}")


def train_job(job: Job, experiment: Experiment) -> None:
    """Train one network and tell TensorBoard what became of it."""
    job.train(experiment)
    write_board(experiment, job.name, job.folder)


def _reached(folder: JobFolder) -> str:
    result = folder.result()
    kinds = {"test_top1": "test top-1", "cosine_last": "cosine (last)", "cka_last": "CKA (last)"}
    return ", ".join(f"{text} {result[key]:.4f}" for key, text in kinds.items() if result.get(key) is not None)


def say(text: str) -> None:
    """Print in the first process alone."""
    if distributed.rank() == 0:
        print(text, flush=True)


def show_plan(jobs: list[Job], experiment: Experiment, fresh: bool) -> None:
    """Say what would be done (`--dry-run`), and draw planted cues on a sheet beside the run's folder."""
    config, folder = experiment.config, experiment.folder
    present = folder.present()
    outdated = with_dependents(config, [job.name for job in jobs], present) if fresh else []
    say(describe(jobs, experiment, [name for name in outdated if name in present]))
    if config.shortcut.cue != "none" and distributed.rank() == 0:
        path = folder.path.with_name(f"{config.name}-cues.png")
        write_contact_sheet(experiment.data, path)
        say(f"contact sheet: {path}")
    say("dry run: nothing was trained, no run folder was written")


def describe(jobs: list[Job], experiment: Experiment, removed: Sequence[JobName] = ()) -> str:
    """Put the resolved config and what would be done into words.

    removed: jobs that are there and would be removed first, as `--fresh` asks for.
    """
    config, data = experiment.config, experiment.data
    teacher = experiment.build(config.teacher, pretrained=False)
    student = experiment.build(config.student, pretrained=False)
    lines = [to_yaml(config)]
    lines.append(f"teacher: {config.teacher.arch}, {count_parameters(teacher):,} parameters")
    lines.append(f"student: {config.student.arch}, {count_parameters(student):,} parameters")
    sizes = [len(data.train), len(data.val) if data.val else 0, len(data.test)]
    lines.append("images: {:,} train, {:,} val, {:,} test".format(*sizes) + f", {data.num_classes} classes")
    lines.append(f"machine: {experiment.machine.device}, {experiment.machine.precision}")
    for job in jobs:
        steps = steps_of(job.batches(data), job.settings.optimizer.accumulate)
        kept = job.folder.finished and job.name not in removed
        most = "at most " if job.settings.until == "plateau" else ""
        state = "finished" if kept else f"{most}{job.epochs} epochs x {steps} steps"
        if job.name == TEACHER and is_given(experiment) and not kept:
            state = "given by the config, not trained"
        lines.append(f"{job.name.title}: {state} -> {job.folder.path}")
    taps = config.teacher.taps or default_taps(teacher, config.data.image_size)
    lines.append(_describe_sizes(jobs, experiment, TappedModel(teacher, taps)))
    return "\n".join([*lines, *(f"--fresh removes {experiment.folder.job(name).path}" for name in removed)])


def _describe_sizes(jobs: list[Job], experiment: Experiment, teacher: TappedModel) -> str:
    config, images = experiment.config, len(experiment.data.train)
    aligning = {job.name.label: config_of(config, job.name).crd for job in jobs if _aligns(job, config)}
    sizes = {label: bank_bytes(settings, images) for label, settings in aligning.items()}
    banks = ", ".join(f"{label} {size / 1e6:,.2f} MB" for label, size in sizes.items() if size)
    asked = any(job.name != TEACHER for job in jobs)
    cached = cache_bytes(experiment, Followed(teacher, config.data.image_size)) if asked else 0
    return f"banks in memory: {banks or 'none'}; teacher's outputs on disk: {cached / 1e6:,.2f} MB"
