"""What each `--phase` trains, what it needs first, and what it would do (`--dry-run`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from configs.reading import to_yaml
from configs.schema import Config
from dataset.loader import steps_per_epoch
from errors import UserError
from models.zoo import count_parameters, find_weights
from training import distributed
from training.baselines import train_baseline
from training.crd import train_stage1
from training.experiment import Experiment
from training.job_folder import JobFolder
from training.kd import train_stage2
from training.run_folder import RunFolder, needs, stage_job
from training.teacher import check_teacher, check_training, is_given, train_teacher

PHASES = ("teacher", "crd", "kd", "baselines", "all")
NEXT = {"teacher": "--phase crd", "crd": "--phase kd", "kd": "--phase baselines"}


@dataclass(frozen=True)
class Job:
    """One training of one network."""

    title: str
    folder: JobFolder
    train: Callable[[Experiment], None]
    epochs: int
    batch_size: int
    balanced: bool = False  # trains on the balanced images


def jobs_of(phase: str, config: Config, folder: RunFolder) -> list[Job]:
    """The trainings of a phase, in the order in which they depend on each other."""
    teacher = config.teacher
    jobs = []
    if phase in ("teacher", "all"):
        jobs.append(Job("teacher", folder.teacher, train_teacher, teacher.epochs, teacher.batch_size))
    for seed in config.seeds:
        students = {job.folder.name: job for job in _students(phase, config, folder, seed)}
        jobs += [students[name] for name in _in_order(config, list(students))]
    return jobs


def _students(phase: str, config: Config, folder: RunFolder, seed: int) -> list[Job]:
    jobs = []

    def add(name: str, train: Callable[[Experiment], None], *arguments: Any) -> None:
        jobs.append(Job(f"{name} seed {seed}", folder.job(seed, name), train, *arguments))

    for variant in (None, *config.variants):
        own = config if variant is None else config.variant(variant)
        stage1, stage2 = (stage_job(config, stage, variant) for stage in ("stage1", "stage2"))
        if phase in ("crd", "all") and (variant is None or stage1 != "stage1"):
            add(stage1, _trainer(train_stage1, seed, variant), own.crd.epochs, own.crd.batch_size)
        if phase in ("kd", "all"):
            balanced = own.kd.images == "balanced"
            add(stage2, _trainer(train_stage2, seed, variant), own.kd.epochs, own.kd.batch_size, balanced)
    for method in config.baselines.methods if phase in ("baselines", "all") else []:
        train = partial(train_baseline, method=method, seed=seed)
        add(method, train, config.baseline_epochs, config.baselines.batch_size)
    return jobs


def _trainer(
    train: Callable[[Experiment, int], None], seed: int, variant: str | None
) -> Callable[[Experiment], None]:
    return lambda experiment: train(experiment if variant is None else experiment.variant(variant), seed)


def _in_order(config: Config, names: list[str]) -> list[str]:
    """The same names, each after those that it needs; stage 1 first, otherwise as they were."""
    ordered: list[str] = []
    waiting = sorted(names, key=lambda name: not name.startswith("stage1"))
    while waiting:
        free = [name for name in waiting if not set(needs(config, name)) & set(waiting)]
        if not free:
            raise UserError(f"{', '.join(waiting)} wait for each other: look at kd.teacher_head")
        ordered.append(free[0])
        waiting.remove(free[0])
    return ordered


def check(phase: str, experiment: Experiment) -> None:
    """Raise `UserError`, before anything is written, if what a phase needs is not there or does not fit."""
    config = experiment.config
    for network in (config.teacher, config.student):
        if network.weights is not None:
            find_weights(network.arch, network.weights)
        experiment.tapped(experiment.build(network.model_copy(update={"weights": None})), network)
    if config.teacher.checkpoint is not None and config.teacher.init is not None:
        raise UserError("teacher.checkpoint is a trained teacher and teacher.init starts one: give one of them")
    if phase == "teacher" and config.teacher.checkpoint is not None:
        raise UserError(
            "teacher.checkpoint names a trained teacher: remove it to train one, or go on with --phase crd"
        )
    if phase in ("teacher", "all"):
        check_training(experiment)
    if phase in ("crd", "kd", "baselines") or (phase == "all" and is_given(experiment)):
        check_teacher(experiment)
    if phase in ("kd", "all"):
        _check_stage2(phase, experiment)


def _check_stage2(phase: str, experiment: Experiment) -> None:
    config, folder = experiment.config, experiment.folder
    jobs = jobs_of(phase, config, folder)
    if any(job.balanced for job in jobs) and experiment.data.balanced is None:
        raise UserError("kd.images: balanced needs a planted cue (shortcut.cue) and data.val_fraction > 0")
    coming = [job.folder for job in jobs]
    for job in jobs:
        for name in needs(config, job.folder.name):
            source = JobFolder(job.folder.path.with_name(name))
            if not source.finished and source not in coming:
                raise UserError(_missing(name, job.title, folder))


def _missing(name: str, title: str, folder: RunFolder) -> str:
    if name.startswith("stage1"):
        what = name.replace("stage1", "stage 1").replace("_", " of ")
        seed = title.rpartition(" ")[2]
        return f"there is no finished {what} for seed {seed} in {folder.path}: run --phase crd first"
    return (
        f"{title} starts from {name}, which is not finished in {folder.path}: "
        "name it in baselines.methods and run --phase baselines, or all"
    )


def run_jobs(jobs: list[Job], experiment: Experiment) -> None:
    """Train what is not finished; a teacher that the config gives is not trained."""
    for job in jobs:
        given = job.folder == experiment.folder.teacher and is_given(experiment)
        if job.folder.finished:
            say(f"{job.title}: finished before, kept")
        elif not given:
            job.train(experiment)
            say(f"{job.title}: done, {_reached(job.folder)}, files in {job.folder.path}")


def _reached(folder: JobFolder) -> str:
    result = folder.result()
    kinds = {"test_top1": "test top-1", "cosine_last": "cosine (last)", "cka_last": "CKA (last)"}
    return ", ".join(f"{text} {result[key]:.4f}" for key, text in kinds.items() if result.get(key) is not None)


def say(text: str) -> None:
    """Print in the first process alone."""
    if distributed.rank() == 0:
        print(text, flush=True)


def describe(jobs: list[Job], experiment: Experiment) -> str:
    """The resolved config and what would be done, for `--dry-run`."""
    config, data = experiment.config, experiment.data
    lines = [to_yaml(config)]
    for title, network in (("teacher", config.teacher), ("student", config.student)):
        model = experiment.build(network.model_copy(update={"weights": None}))
        lines.append(f"{title}: {network.arch}, {count_parameters(model):,} parameters")
    sizes = [len(data.train), len(data.val) if data.val else 0, len(data.test)]
    lines.append("images: {:,} train, {:,} val, {:,} test".format(*sizes) + f", {data.num_classes} classes")
    precision = "bfloat16" if experiment.machine.bfloat16 else "float32"
    lines.append(f"machine: {experiment.machine.device}, {precision}")
    for job in jobs:
        images = data.balanced if job.balanced and data.balanced else data.train
        steps = steps_per_epoch(len(images), job.batch_size)
        state = "finished" if job.folder.finished else f"{job.epochs} epochs x {steps} steps"
        if job.folder == experiment.folder.teacher and is_given(experiment) and not job.folder.finished:
            state = "given by the config, not trained"
        lines.append(f"{job.title}: {state} -> {job.folder.path}")
    return "\n".join([*lines, "dry run: nothing was trained, no run folder was written"])
