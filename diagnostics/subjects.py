"""What `main_eval.py` evaluates: the networks of a run, or two files of weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from configs.networks import Network
from configs.stages import METHODS
from diagnostics import recording, recording_file
from diagnostics.budget import trainings
from diagnostics.recording import Context, Recording, Subject
from errors import UserError, warn
from files import write_atomically
from models.checkpoint import load
from models.machine import Machine
from models.whole import file_hash
from training.environment import environment, read_environment
from training.experiment import Experiment, open_experiment
from training.identity import check_identity
from training.job_folder import PROJECTIONS, JobFolder
from training.job_name import TEACHER, JobName, baseline, stage1, stage2
from training.run_folder import RunFolder

STUDENT = "student"  # the method of one that is given as a file


def open_run(folder: RunFolder, machine: Machine) -> Experiment:
    """A run as it was configured, on the images that it was made from.

    Raises:
        UserError: the images are others now.
    """
    experiment = open_experiment(folder.config(), folder, machine)
    check_identity(folder.path, experiment.data)
    return experiment


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
    jobs = {subject.name: _job(subject) for subject in subjects if subject.detailed}
    given = trainings(experiment, jobs.values())
    return [
        replace(subject, trainings=given[jobs[subject.name]]) if subject.detailed else subject
        for subject in subjects
    ]


def _job(subject: Subject) -> JobName:
    """The training that a subject's weights are the result of."""
    if subject.seed is None:
        return TEACHER
    if subject.method in METHODS:
        return baseline(subject.seed, subject.method)
    if subject.method == "stage1":
        return stage1(subject.seed)
    return stage2(subject.seed, "" if subject.method == "two_stage" else subject.method)


def _students(experiment: Experiment, seed: int, first: bool) -> Iterator[Subject | None]:
    """In the order of the tables: what a pair's sentence is about comes last."""
    folder, network = experiment.folder, experiment.config.student
    aligned = experiment.stage1(seed)
    for method in (*METHODS, *experiment.config.baselines.variants):
        yield _subject(experiment, method, seed, folder.job(baseline(seed, method)), network, first)
    if first:
        yield _subject(experiment, "stage1", seed, aligned, network, first, aligned)
    for name in experiment.config.variants:
        yield _two_stage(experiment.of_variant(name), name, seed, first)
    yield _two_stage(experiment, "two_stage", seed, first)


def _two_stage(experiment: Experiment, method: str, seed: int, first: bool) -> Subject | None:
    config = experiment.config
    network = config.teacher if config.kd.features == "teacher" else config.student
    aligned = experiment.stage1(seed) if config.kd.features == "stage1" else None
    return _subject(experiment, method, seed, experiment.stage2(seed), network, first, aligned)


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
    if not job.marked:
        return None
    job.verified_model()
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
        stem=network.stem,
        made_with=experiment.made_with(network),
        projections=load(projections) if projections and projections.exists() else None,
        stage1=aligned.history() if aligned else (),
    )


def find_subject(experiment: Experiment, method: str, seed: int | None) -> Subject:
    """The model of a run that is asked for, of its first seed where none is given.

    Raises:
        UserError: it is not there, or not finished; a seed of the teacher, which has none.
    """
    if method == "teacher" and seed is not None:
        raise UserError(f"--seed {seed}: a run has one teacher for all seeds, leave --seed out")
    found = {(subject.method, subject.seed): subject for subject in subjects_of_run(experiment)}
    seeds = experiment.folder.seeds()
    of = None if method == "teacher" else seed if seed is not None else next(iter(seeds), None)
    wanted = (method, of)
    if wanted not in found:
        known = ", ".join(sorted(subject.name for subject in found.values() if subject.classifies))
        of_seed = "" if of is None else f" of seed {of}"
        has = known or "none that classifies"
        raise UserError(f"{experiment.folder.path} has no finished {method}{of_seed}: it has {has}")
    if not found[wanted].classifies:
        raise UserError(f"{method} does not classify: its classifier is untrained, choose another model")
    return found[wanted]


def teacher_of(experiment: Experiment) -> Subject | None:
    """The teacher of a run's students; None where it is not finished."""
    return _subject(experiment, "teacher", None, experiment.folder.teacher, experiment.config.teacher, first=True)


def network_of(experiment: Experiment, subject: Subject) -> Network:
    """The config's section of a network: a variant on the teacher's features is the teacher's network."""
    config = experiment.config
    if subject.method == "teacher":
        return config.teacher
    if subject.method == STUDENT and STUDENT not in config.variants:
        return config.student  # given as a file
    variant = config.variant(subject.method) if subject.method in config.variants else config
    two_stage = subject.method not in (*METHODS, *config.baselines.variants)
    return config.teacher if variant.kd.features == "teacher" and two_stage else config.student


def subjects_of_files(experiment: Experiment, teacher: Path, student: Path) -> list[Subject]:
    """A teacher and a student given as files, built as the config says."""
    subjects = []
    for method, path, network in (
        ("teacher", teacher, experiment.config.teacher),
        (STUDENT, student, experiment.config.student),
    ):
        build = partial(experiment.loaded, network, path)
        build()  # so that a file that does not fit is refused before anything is written
        seed = None if method == "teacher" else 0
        subjects.append(
            Subject(
                method,
                method,
                seed,
                network.arch,
                file_hash(path),
                True,
                True,
                network.taps,
                [],
                build,
                network.stem,
                experiment.made_with(network),
            )
        )
    return subjects


def record(experiment: Experiment, subjects: list[Subject], folder: Path) -> Recording:
    """Record the subjects, reusing and then replacing `folder`/predictions.npz."""
    path = folder / "predictions.npz"
    try:
        old = recording_file.read(path) if path.exists() else None
    except ValueError as error:  # damaged, or of another version
        warn(f"{error}: recorded anew")
        old = None
    new = recording.record(subjects, experiment.data, experiment.machine, _context(experiment), old)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: recording_file.write(new, file))
    return new


def _context(experiment: Experiment) -> Context:
    config, data = experiment.config, experiment.data
    here = {key: value for key, value in environment().items() if key != "command"}
    return Context(
        run=experiment.folder.path.name,
        config=config.model_dump(mode="json"),
        classes=experiment.data.classes,
        fingerprint=experiment.data.fingerprint,
        bfloat16=experiment.machine.bfloat16,
        float16=experiment.machine.float16,
        evaluated_on=here,
        trained_on=read_environment(experiment.folder.path),
        made_on=_made_on(experiment),
        test=data.identity.of_test,
    )


def _made_on(experiment: Experiment) -> str:
    """Digest of all that outputs depend on beside the network: images, normalisation, precision, device."""
    data, machine = experiment.data, experiment.machine
    parts = [data.fingerprint, data.mean.tolist(), data.std.tolist(), machine.bfloat16, machine.device.type]
    parts += ["float16"] if machine.float16 else []  # named apart, so that recordings of before are used again
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
