"""What `main_eval.py` evaluates: the networks of a run, or two files of weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from torch import nn

from configs.schema import METHODS, Config, Network
from dataset.prepare import prepare
from dataset.sources import load_source
from diagnostics import recording
from diagnostics.recording import Context, Recording, Subject
from errors import UserError
from files import write_atomically
from models.checkpoint import file_hash, load, load_weights
from models.machine import Machine
from training.crd import PROJECTIONS
from training.environment import environment
from training.experiment import Experiment
from training.job_folder import JobFolder
from training.run_folder import RunFolder


def open_run(folder: RunFolder, machine: Machine) -> Experiment:
    """A run as it was configured, on the images it was configured with."""
    config = folder.config()
    return Experiment(
        config, prepare(load_source(config.data), config.data, machine.device, config.shortcut), machine, folder
    )


def subjects_of_run(experiment: Experiment) -> list[Subject]:
    """Teacher and students of a run that are finished; those of its first seed are looked at in detail.

    Raises:
        UserError: nothing is finished.
    """
    config, folder = experiment.config, experiment.folder
    seeds = folder.seeds()
    found = [_subject(experiment, "teacher", None, folder.teacher, config.teacher, first=True)]
    for seed in seeds:
        found += _students(experiment, seed, first=seed == seeds[0])
    subjects = [subject for subject in found if subject is not None]
    if not subjects:
        raise UserError(f"{folder.path} holds no finished model: run python main.py --phase all")
    return subjects


def _students(experiment: Experiment, seed: int, first: bool) -> Iterator[Subject | None]:
    """In the order of the tables: what a pair's sentence is about comes last."""
    folder, network = experiment.folder, experiment.config.student
    aligned = folder.job(seed, "stage1")
    for method in METHODS:
        yield _subject(experiment, method, seed, folder.job(seed, method), network, first)
    if first:
        yield _subject(experiment, "stage1", seed, aligned, network, first, aligned)
    for name in experiment.config.variants:
        yield _two_stage(experiment.variant(name), name, seed, first)
    yield _two_stage(experiment, "two_stage", seed, first)


def _two_stage(experiment: Experiment, method: str, seed: int, first: bool) -> Subject | None:
    config, folder = experiment.config, experiment.folder
    network = config.teacher if config.kd.features == "teacher" else config.student
    aligned = folder.job(seed, "stage1") if config.kd.features == "stage1" else None
    return _subject(experiment, method, seed, folder.job(seed, "stage2"), network, first, aligned)


def _subject(
    experiment: Experiment,
    method: str,
    seed: int | None,
    job: JobFolder,
    network: Network,
    first: bool,
    aligned: JobFolder | None = None,
) -> Subject | None:
    """A network to evaluate, None if it is not finished; `aligned` is the stage 1 that its features are from."""
    if not job.finished:
        return None
    projections = aligned and aligned.path / PROJECTIONS
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
        projections=load(projections) if projections and projections.exists() else None,
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


def record(experiment: Experiment, subjects: list[Subject], folder: Path) -> Recording:
    """Record the subjects, reusing and then replacing `folder`/predictions.npz."""
    path = folder / "predictions.npz"
    try:
        old = recording.read(path) if path.exists() else None
    except ValueError:
        old = None  # of another version: recorded again below
    new = recording.record(subjects, experiment.data, experiment.machine, _context(experiment), old)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: recording.write(new, file))
    return new


def _context(experiment: Experiment) -> Context:
    config: Config = experiment.config
    trained = experiment.folder.path / "environment.json"
    here = {key: value for key, value in environment().items() if key != "command"}
    return Context(
        run=experiment.folder.path.name,
        config=config.model_dump(mode="json"),
        classes=experiment.data.classes,
        fingerprint=experiment.data.fingerprint,
        bfloat16=experiment.machine.bfloat16,
        evaluated_on=here,
        trained_on=json.loads(trained.read_text(encoding="utf-8")) if trained.exists() else None,
    )
