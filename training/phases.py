"""What each `--phase` trains, what it needs first, and what it would do (`--dry-run`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from config import Config, Network
from config_file import to_yaml
from dataset.loader import steps_per_epoch
from errors import UserError
from models import count_parameters, find_weights
from training import distributed
from training.baselines import train_baseline
from training.crd import train_stage1
from training.experiment import Experiment, RunFolder
from training.job_folder import JobFolder
from training.kd import train_stage2
from training.teacher import check_teacher, is_given, train_teacher

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
    network: Network


def jobs_of(phase: str, config: Config, folder: RunFolder) -> list[Job]:
    """The trainings of a phase, in the order in which they depend on each other."""
    teacher = config.teacher
    jobs = []
    if phase in ("teacher", "all"):
        jobs.append(Job("teacher", folder.teacher, train_teacher, teacher.epochs, teacher.batch_size, teacher))
    for seed in config.seeds:
        students: list[tuple[str, Callable[..., None], int, int]] = []
        if phase in ("crd", "all"):
            students.append(("stage1", train_stage1, config.crd.epochs, config.crd.batch_size))
        if phase in ("kd", "all"):
            students.append(("stage2", train_stage2, config.kd.epochs, config.kd.batch_size))
        if phase in ("baselines", "all"):
            for method in config.baselines.methods:
                train = partial(train_baseline, method=method)
                students.append((method, train, config.baseline_epochs, config.baselines.batch_size))
        for name, train, epochs, batch_size in students:
            job = folder.job(seed, name)
            jobs.append(
                Job(f"{name} seed {seed}", job, partial(train, seed=seed), epochs, batch_size, config.student)
            )
    return jobs


def check(phase: str, experiment: Experiment) -> None:
    """Raise `UserError`, before anything is written, if what a phase needs is not there or does not fit."""
    config, folder = experiment.config, experiment.folder
    for network in (config.teacher, config.student):
        if network.weights is not None:
            find_weights(network.arch, network.weights)
        experiment.tapped(experiment.build(network.model_copy(update={"weights": None})), network)
    if phase == "teacher" and config.teacher.checkpoint is not None:
        raise UserError(
            "teacher.checkpoint names a trained teacher: remove it to train one, or go on with --phase crd"
        )
    if phase in ("crd", "kd", "baselines") or (phase == "all" and is_given(experiment)):
        check_teacher(experiment)
    for seed in config.seeds if phase == "kd" else []:
        if not folder.job(seed, "stage1").finished:
            raise UserError(
                f"there is no finished stage 1 for seed {seed} in {folder.path}: run --phase crd first"
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
        steps = steps_per_epoch(len(data.train), job.batch_size)
        state = "finished" if job.folder.finished else f"{job.epochs} epochs x {steps} steps"
        if job.folder == experiment.folder.teacher and is_given(experiment) and not job.folder.finished:
            state = "given by the config, not trained"
        lines.append(f"{job.title}: {state} -> {job.folder.path}")
    return "\n".join([*lines, "dry run: nothing was trained, no run folder was written"])
