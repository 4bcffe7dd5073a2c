"""What `main_eval.py` evaluates: the networks of a run, or two files of weights."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from config import Config, Network
from dataset.loader import prepare
from dataset.sources import load_source
from diagnostics import recording
from diagnostics.recording import Recordings, Subject
from errors import UserError
from files import write_atomically
from machine import Machine
from training.checkpoint import file_hash, load, load_weights
from training.crd import PROJECTIONS
from training.experiment import Experiment, RunFolder, environment
from training.job_folder import JobFolder

# folder -> name in tables, in the order of the tables; what a pair's sentence is about comes last
METHODS = {name: name for name in ("scratch", "kd", "crd", "crd_kd", "stage1")} | {"stage2": "two_stage"}


def open_run(folder: RunFolder, machine: Machine) -> Experiment:
    """A run as it was configured, on the images it was configured with."""
    config = folder.config()
    return Experiment(config, prepare(load_source(config.data), config.data, machine.device), machine, folder)


def subjects_of_run(experiment: Experiment) -> list[Subject]:
    """Teacher and students of a run that are finished; those of its first seed are looked at in detail.

    Raises:
        UserError: nothing is finished.
    """
    config, folder = experiment.config, experiment.folder
    jobs: list[tuple[str, int | None, JobFolder]] = [("teacher", None, folder.teacher)]
    seeds = folder.seeds()
    jobs += [(method, seed, folder.job(seed, name)) for seed in seeds for name, method in METHODS.items()]
    finished = [(method, seed, job) for method, seed, job in jobs if job.finished]
    if not finished:
        raise UserError(f"{folder.path} holds no finished model: run python main.py --phase all")
    subjects = []
    for method, seed, job in finished:
        network: Network = config.teacher if seed is None else config.student
        first = seed is None or seed == seeds[0]
        if method == "stage1" and not first:
            continue
        subjects.append(_subject(experiment, method, seed, job, network, first))
    return subjects


def _subject(
    experiment: Experiment, method: str, seed: int | None, job: JobFolder, network: Network, first: bool
) -> Subject:
    aligned = job.path.with_name("stage1") / PROJECTIONS  # of the same seed
    uses_stage1 = method in ("stage1", "two_stage") and aligned.exists()
    return Subject(
        name=method if first else f"{method}/{seed}",
        method=method,
        seed=seed,
        arch=network.arch,
        weights_hash=job.result()["model_sha256"],
        classifies=method != "stage1",
        detailed=first,
        taps=network.taps,
        history=job.history(),
        build=partial(experiment.trained, network, job),
        projections=load(aligned) if uses_stage1 else None,
    )


def subjects_of_files(experiment: Experiment, teacher: Path, student: Path) -> list[Subject]:
    """A teacher and a student given as files, built as the config says."""
    subjects = []
    for method, path, network in (
        ("teacher", teacher, experiment.config.teacher),
        ("student", student, experiment.config.student),
    ):
        build = partial(_load, experiment, network, path)
        build()  # so that a file that does not fit is refused before anything is written
        seed = None if method == "teacher" else 0
        subjects.append(
            Subject(method, method, seed, network.arch, file_hash(path), True, True, network.taps, [], build)
        )
    return subjects


def _load(experiment: Experiment, network: Network, path: Path) -> nn.Module:
    model = experiment.build(network.model_copy(update={"weights": None}))
    load_weights(model, path, network.arch)
    return experiment.machine.place(model).eval()


def record(experiment: Experiment, subjects: list[Subject], folder: Path) -> Recordings:
    """Record the subjects, reusing and then replacing `folder`/predictions.npz."""
    path = folder / "predictions.npz"
    try:
        old = recording.read(path) if path.exists() else None
    except ValueError:
        old = None  # of another version: recorded again below
    recordings = recording.record(subjects, experiment.data, experiment.machine, _context(experiment), old)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: recording.write(recordings, file))
    return recordings


def _context(experiment: Experiment) -> dict[str, Any]:
    config: Config = experiment.config
    trained = experiment.folder.path / "environment.json"
    here = {key: value for key, value in environment().items() if key != "command"}
    return {
        "run": experiment.folder.path.name,
        "config": config.model_dump(mode="json"),
        "classes": experiment.data.classes,
        "fingerprint": experiment.data.fingerprint,
        "bfloat16": experiment.machine.bfloat16,
        "evaluated_on": here,
        "trained_on": json.loads(trained.read_text(encoding="utf-8")) if trained.exists() else None,
    }
