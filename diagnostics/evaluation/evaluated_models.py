"""The models to evaluate: the networks of a run, or two files of weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from functools import partial
from pathlib import Path

from diagnostics.budget import describe_trainings
from diagnostics.evaluation import recording_file
from diagnostics.evaluation.recording import Context, EvaluatedModel, Recording, record_models
from diagnostics.names import choose_main, find_staged
from diagnostics.writable import check_report_folder
from errors import UserError, warn
from files import write_atomically
from models.checkpoint import load
from models.machine import Machine
from models.whole import hash_file
from settings.networks import Network
from settings.schema import Config
from training.experiment import Experiment, open_experiment
from training.job_name import TEACHER, JobName, find_last_job, get_stage, list_chain, list_method_jobs
from training.run.environment import collect_environment, read_environment
from training.run.identity import check_identity
from training.run.job_folder import PROJECTIONS
from training.run.run_folder import RunFolder

STUDENT = "student"  # the method of a student that is given as a file
STAGE1 = "stage1"  # the features that the main staged method begins with


def open_run(folder: RunFolder, machine: Machine) -> Experiment:
    """Open a run as it was configured.

    Raises:
        UserError: its images have changed since.
    """
    experiment = open_experiment(folder.read_config(), folder, machine)
    check_identity(folder.path, experiment.data)
    return experiment


def list_run_models(experiment: Experiment) -> list[EvaluatedModel]:
    """List the finished models of a run, those of its first seed `detailed`.

    Raises:
        UserError: nothing is finished.
    """
    folder = experiment.folder
    seeds = folder.list_seeds()
    named = [(TEACHER.method, TEACHER)]
    for seed in seeds:
        named += _list_students(experiment.config, seed, is_first=seed == seeds[0])
    detailed = {job for _, job in named if job.seed in (None, *seeds[:1])}
    subjects = [
        _make_subject(experiment, method, job, detailed) for method, job in named if folder.get_job(job).has_result
    ]
    if not subjects:
        raise UserError(f"{folder.path} holds no finished model: run python main.py --phase all")
    return subjects


def _list_students(config: Config, seed: int, is_first: bool) -> list[tuple[str, JobName]]:
    """List the methods of a seed with their last job, the main one last.

    Of the first seed, a first stage of the main one that trains features comes before it.
    """
    main = find_staged(config.stages)
    methods = sorted(config.stages, key=lambda name: (len(config.stages[name]) > 1, name == main))
    named = [(method, find_last_job(config, method, seed)) for method in methods]
    if main is not None and is_first:
        aligned = list_method_jobs(config, main, seed)[0]
        if not get_stage(config, aligned).has_answers:
            named.insert(-1, (STAGE1, aligned))
    return named


def _make_subject(
    experiment: Experiment, method: str, job: JobName, detailed: Collection[JobName]
) -> EvaluatedModel:
    """Describe the network of a finished job; `detailed` jobs in detail."""
    config, folder, network = experiment.config, experiment.folder.get_job(job), experiment.find_network(job)
    folder.verify_model()
    chain = list_chain(config, job)
    aligned = None if get_stage(config, chain[0]).has_answers else experiment.folder.get_job(chain[0])
    projections = aligned and aligned.path / PROJECTIONS
    is_detailed, before = job in detailed, [one for one in chain[:-1] if one not in detailed]
    return EvaluatedModel(
        name=method if is_detailed else f"{method}/{job.seed}",
        method=method,
        seed=job.seed,
        arch=network.arch,
        weights_hash=folder.read_result()["model_sha256"],
        classifies=get_stage(config, job).has_answers,
        detailed=is_detailed,
        taps=list_taps(experiment, network),
        history=folder.read_history(),
        build=partial(experiment.load_trained, network, folder),
        stem=network.stem,
        made_with=experiment.list_dependencies(network),
        projections=load(projections) if projections and projections.exists() else None,
        stage1=aligned.read_history() if aligned else (),
        trainings=describe_trainings(experiment, job) if is_detailed else None,
        earlier={one.short: experiment.folder.get_job(one).read_history() for one in before}
        if is_detailed
        else {},
        job=job,
    )


def list_taps(experiment: Experiment, network: Network) -> list[str]:
    """List the places of penultimate and last tap, equal with one block."""
    taps = experiment.find_layout(network).taps
    return [taps.get("penultimate", taps["last"]), taps["last"]]


def find_model(experiment: Experiment, method: str | None, seed: int | None) -> EvaluatedModel:
    """Find a model of a run, by default of its first seed.

    method: by default two_stage, else the last staged method, else the last; the teacher of a run without any.

    Raises:
        UserError: it is not there, or not finished; a seed of the teacher, which has none.
    """
    stages = experiment.config.stages
    method = method or find_staged(stages) or choose_main([TEACHER.method, *stages])
    if method == TEACHER.method and seed is not None:
        raise UserError(f"--seed {seed}: a run has one teacher for all seeds, leave --seed out")
    found = {(subject.method, subject.seed): subject for subject in list_run_models(experiment)}
    seeds = experiment.folder.list_seeds()
    if method != TEACHER.method and seed is None:
        seed = next(iter(seeds), None)
    wanted = (method, seed)
    if wanted not in found:
        known = ", ".join(sorted(subject.name for subject in found.values() if subject.classifies))
        name = method if seed is None else f"{method} of seed {seed}"
        has = known or "none that classifies"
        raise UserError(f"{experiment.folder.path} has no finished {name}: it has {has}")
    if not found[wanted].classifies:
        raise UserError(f"{method} does not classify: its classifier is untrained, choose another model")
    return found[wanted]


def find_teacher(experiment: Experiment) -> EvaluatedModel | None:
    """Return the teacher of a run's students; None where it is not finished."""
    finished = experiment.folder.teacher.has_result
    return _make_subject(experiment, TEACHER.method, TEACHER, [TEACHER]) if finished else None


def find_network(experiment: Experiment, subject: EvaluatedModel) -> Network:
    """Find the config's section of a model's network."""
    if subject.job is not None:
        return experiment.find_network(subject.job)
    return experiment.config.teacher if subject.method == TEACHER.method else experiment.config.student


def load_file_models(experiment: Experiment, teacher: Path, student: Path) -> list[EvaluatedModel]:
    """Load a teacher and a student from files, built as the config says."""
    subjects = []
    for method, path, network in (
        (TEACHER.method, teacher, experiment.config.teacher),
        (STUDENT, student, experiment.config.student),
    ):
        build = partial(experiment.load_network, network, path)
        build()  # refuses a file that does not fit before anything is written
        subject = EvaluatedModel(
            name=method,
            method=method,
            seed=None if method == TEACHER.method else 0,
            arch=network.arch,
            weights_hash=hash_file(path),
            classifies=True,
            detailed=True,
            taps=list_taps(experiment, network),
            history=[],
            build=build,
            stem=network.stem,
            made_with=experiment.list_dependencies(network),
        )
        subjects.append(subject)
    return subjects


def record(experiment: Experiment, subjects: list[EvaluatedModel], folder: Path) -> Recording:
    """Record into `folder`/predictions.npz, reusing an earlier recording."""
    check_report_folder(folder)
    path = folder / "predictions.npz"
    try:
        old = recording_file.read_recording(path) if path.exists() else None
    except ValueError as error:  # damaged, or of another version
        warn(f"{error}: it is recorded again")
        old = None
    new = record_models(subjects, experiment.data, experiment.machine, _describe_context(experiment), old)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: recording_file.write_recording(new, file))
    return new


def _describe_context(experiment: Experiment) -> Context:
    config, data = experiment.config, experiment.data
    here = {key: value for key, value in collect_environment().items() if key != "command"}
    return Context(
        run=experiment.folder.path.name,
        config={**config.model_dump(mode="json"), "methods": config.resolve()["methods"]},
        classes=experiment.data.classes,
        fingerprint=experiment.data.fingerprint,
        bfloat16=experiment.machine.bfloat16,
        float16=experiment.machine.float16,
        evaluated_on=here,
        trained_on=read_environment(experiment.folder.path),
        made_on=_compute_data_digest(experiment),
        test=data.identity.test_digest,
        repeats=data.repeats,
    )


def _compute_data_digest(experiment: Experiment) -> str:
    """Return a digest of images, normalisation, precision and device."""
    data, machine = experiment.data, experiment.machine
    parts = [data.fingerprint, data.mean.tolist(), data.std.tolist(), machine.bfloat16, machine.device.type]
    parts += ["float16"] if machine.float16 else []
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
