"""A study: every point of a grid with every seed as a run, trained and recorded.

runs/STUDY/config.yaml           the config with the grid and the hypotheses; it may gain seeds and methods later
runs/STUDY/POINT-seedS/          a run like any other, with its own teacher
runs/STUDY/POINT-seedS/seedS/    its students, and cues.npz and cues.json: how they answer under cues
"""

from __future__ import annotations

import io
import time
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

from diagnostics.evaluation.evaluated_models import list_run_models
from diagnostics.shortcut import cue_recording_file
from diagnostics.shortcut import recording as shortcut_recording
from diagnostics.shortcut.cued import CueContext
from errors import MachineError, UserError, to_user_error
from files import hold_lock, write_text
from models.machine import Machine
from settings.reading import find_differing_keys, show_keys
from settings.schema import Config
from study.grid import StudyRun, read_shard
from study.methods import find_recording
from study.plan import StudyRuns, check_study, describe_study, is_recorded
from study.sharing import copy_job
from training import distributed
from training.distributed import print_rank0
from training.experiment import Experiment
from training.job_name import TEACHER
from training.pace import show_duration
from training.phases import train_job
from training.run.environment import collect_environment
from training.run.identity import NAME as IDENTITY
from training.run.identity import check_identity, write_identity
from training.run.prepare import keep_methods
from training.run.record_file import write_record
from training.run.run_folder import RunFolder, write_config
from training.run.run_lock import lock_run
from training.teacher import ensure_teacher, is_given


def run_study_phase(config: Config, output_dir: Path, machine: Machine, shard: str | None, dry_run: bool) -> None:
    """Run or describe a study; `machine.quiet` leaves out the line of each run.

    Raises:
        UserError: a malformed shard, several processes, or an error of `run_study`.
    """
    if distributed.world_size() > 1:
        raise UserError("--phase study runs in one process: split it with --shard")
    part, alone = read_shard(shard or "1/1"), replace(machine, quiet=True)
    study = StudyRuns(config, output_dir / config.name, alone, part, dry_run)
    if dry_run:
        _read_seeds(study)
        print_rank0(describe_study(study))
        print_rank0("dry run: nothing was trained, no run folder was written")
        return
    run_study(study, machine.quiet)
    print_rank0(f"next: python main_eval.py {study.folder}")


def run_study(study: StudyRuns, quiet: bool) -> None:
    """Train and record the missing runs of a shard, resuming a stopped start.

    A run that fails is named and left as it is; the others go on.

    Raises:
        UserError: before anything is written, a grid that does not fit or a folder of another study; at the end,
            runs that failed.
        MachineError: at the end, a run that the machine could not write.
    """
    check_study(study)
    _write_study_config(study)
    waiting = [run for run in study.mine if not is_recorded(run, study.get_run_folder(run))]
    kept, started = len(study.mine) - len(waiting), time.perf_counter()
    failed: dict[str, UserError | MachineError] = {}
    where = "" if study.shard.count == 1 else f" of shard {study.shard.number}/{study.shard.count}"
    print_rank0(f"{len(study.mine)} runs{where}, {kept} already finished")
    for number, run in enumerate(waiting, start=1):
        begun = time.perf_counter()
        try:
            counts = train_run(study, run)
        except (UserError, MachineError, OSError, MemoryError, RuntimeError) as error:
            known = to_user_error(error)
            if known is None:
                raise
            failed[run.name] = known
            print_rank0(f"{run.name} failed: {known}")
            continue
        if not quiet:
            now = time.perf_counter()
            left = show_duration((now - started) / number * (len(waiting) - number))
            done = f"{_describe_trainings(counts)} in {show_duration(now - begun)}"
            print_rank0(f"{kept + number}/{len(study.mine)} {run.name}: {done}; about {left} left")
    if failed:
        by_machine = any(isinstance(error, MachineError) for error in failed.values())
        kind = MachineError if by_machine else UserError
        runs = "1 run" if len(failed) == 1 else f"{len(failed)} runs"
        raise kind(f"{runs} failed, the first {next(iter(failed))}: see above; the others are done")


def _describe_trainings(counts: Counter[str]) -> str:
    trained, copied = counts["trained"], counts["copied"]
    parts = [f"trained {trained} model{'s' * (trained != 1)}"] if trained else []
    parts += [f"copied {copied} from another run"] if copied else []
    return ", ".join(parts) or "recorded"


def _read_seeds(study: StudyRuns) -> list[int]:
    """Return the seeds of the study in this folder; none where the folder is free.

    Raises:
        UserError: it holds something else, or another study.
    """
    path = study.folder / "config.yaml"
    if not path.exists():
        if study.folder.exists() and any(study.folder.glob("[!.]*")):
            raise UserError(f"{study.folder} holds files but no config.yaml: choose another --set name=...")
        return []
    if (study.folder / IDENTITY).exists() or RunFolder(study.folder).teacher.has_files:
        raise UserError(f"{study.folder} is a run, not a study: choose another --set name=...")
    old = RunFolder(study.folder).read_config()
    keys = find_differing_keys(old, study.config)
    if keys:
        raise UserError(
            f"{study.folder} is a study with other values of {show_keys(keys)}: "
            "choose another --set name=..., or remove the folder to start over"
        )
    return list(old.seeds)


def _write_study_config(study: StudyRuns) -> None:
    """Write the study's config, with its new seeds added to those that are there."""
    path = study.folder / "config.yaml"
    _read_seeds(study)
    study.folder.mkdir(parents=True, exist_ok=True)
    with hold_lock(study.folder / ".lock", wait=True):  # shards start together
        seeds = list(dict.fromkeys([*_read_seeds(study), *study.config.seeds]))
        write_config(path, study.config.model_copy(update={"seeds": seeds}))
        write_record(study.folder / "environment.json", collect_environment())


def train_run(study: StudyRuns, run: StudyRun) -> Counter[str]:
    """Train each missing job or copy it, then record; return the counts of both.

    Raises:
        UserError: another process works on this run, it was made with other settings, or training fails.
    """
    with lock_run(study.get_run_folder(run).path):
        return _train_missing(study, run)


def _train_missing(study: StudyRuns, run: StudyRun) -> Counter[str]:
    experiment, folder, counts = study.open(run), study.get_run_folder(run), Counter[str]()
    if (folder.path / "config.yaml").exists():
        keys = find_differing_keys(folder.read_config(), run.config)
        if keys:
            raise UserError(f"{folder.path} was made with other values of {show_keys(keys)}: remove it")
        check_identity(folder.path, experiment.data)
    else:
        write_text(folder.path / "environment.json", (study.folder / "environment.json").read_text("utf-8"))
        write_identity(folder.path, experiment.data)
    trained = [job.method for job in folder.list_present_jobs()]
    write_config(folder.path / "config.yaml", keep_methods(folder, run.config, trained))  # it may have gained some
    for job in study.list_jobs(run):
        if job.folder.is_finished:
            job.folder.drop_checkpoints()
            continue
        if job.name == TEACHER and is_given(experiment):
            ensure_teacher(experiment)
            continue
        source = study.find_copy(run, job)
        if source is not None:
            copy_job(source, job.folder)
        else:
            with redirect_stdout(io.StringIO()):  # one line a run
                train_job(job, experiment)
        counts["trained" if source is None else "copied"] += 1
    _record(experiment, run)
    return counts


def _record(experiment: Experiment, run: StudyRun) -> None:
    subjects = [subject for subject in list_run_models(experiment) if subject.classifies]
    temperature = run.config.losses.get("kl", {}).get("temperature", CueContext.temperature)
    about = CueContext(dict(run.point), run.seed, run.config.shortcut.model_dump(mode="json"), temperature)
    recording = shortcut_recording.record_cues(subjects, experiment.data, experiment.machine, about)
    cue_recording_file.write_cue_recording(recording, find_recording(run, experiment.folder))
