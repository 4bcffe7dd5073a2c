"""Validate and initialise a run folder; a fresh start removes jobs from it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from dataset.prepare import TrainingData
from errors import UserError
from settings.reading import find_differing_keys, show_keys
from settings.schema import Config, list_prerequisites
from settings.stages import Stage
from training import distributed
from training.job_name import TEACHER, JobName, list_sources
from training.rates import has_only_rate_changes
from training.run.environment import collect_environment
from training.run.identity import check_identity, write_identity
from training.run.record_file import write_record
from training.run.run_folder import RunFolder, write_config
from training.run.run_lock import has_files


def prepare_run_dir(
    folder: RunFolder, config: Config, data: TrainingData, *, fresh: bool, resume: bool, jobs: list[JobName]
) -> None:
    """Validate and initialise a run folder.

    Args:
        folder: of the run.
        config: the resolved config.
        data: the images as they are now.
        fresh: remove what `jobs` left, and what was trained from that, and start over.
        resume: continue unfinished jobs, at other learning rates than before where the config says so.
        jobs: what is about to be trained.

    Raises:
        UserError: an unfinished job without `fresh` or `resume`, or a run made with another config or from other
            images.
    """
    outdated = find_outdated(folder, config, jobs) if fresh else []
    kept = [job for job in folder.list_present_jobs() if job not in outdated]
    check_config(folder, config, kept, fresh=fresh, resume=resume)
    if kept and (folder.path / "config.yaml").exists():
        check_identity(folder.path, data)
    for job in kept:
        if job in jobs:
            folder.get_job(job).refuse_missing_files()
    unfinished = [folder.get_job(job) for job in jobs if folder.get_job(job).is_unfinished]
    if unfinished and not (fresh or resume):
        done = len(unfinished[0].read_history())
        raise UserError(
            f"{unfinished[0].path} is unfinished ({done} epochs done): "
            "go on with --resume or start over with --fresh"
        )
    distributed.wait_for_all()  # every process has looked before the first of them writes
    if distributed.rank() == 0:
        _clear(folder, outdated)
        folder.path.mkdir(parents=True, exist_ok=True)
        write_identity(folder.path, data)
        write_config(folder.path / "config.yaml", keep_methods(folder, config, [job.method for job in kept]))
        write_record(folder.path / "environment.json", collect_environment())
    distributed.wait_for_all()


def check_config(folder: RunFolder, config: Config, kept: list[JobName], *, fresh: bool, resume: bool) -> None:
    """Raise `UserError` where the jobs that a run keeps were trained with another config.

    Args: as `prepare_run_dir`, with the jobs that stay.
    """
    if not (folder.path / "config.yaml").exists():
        if has_files(folder.path):
            raise UserError(f"{folder.path} holds files but no config.yaml: choose another --set name=...")
        return
    if any(folder.path.glob("*/config.yaml")):
        raise UserError(f"{folder.path} is a study, not a run: choose another --set name=...")
    if fresh and not kept:
        return
    old = folder.read_config()
    if resume and has_only_rate_changes(old, config, [job for job in kept if folder.get_job(job).has_result]):
        return
    keys = find_differing_keys(old, config)
    if keys:
        raise UserError(
            f"{folder.path} was made with other values of {show_keys(keys)}: choose another --set name=..., "
            "or start over with --phase all --fresh"
        )


def _clear(folder: RunFolder, jobs: list[JobName]) -> None:
    """Remove jobs and what they left, those that others were trained from last.

    All result.json go first: an interruption leaves no finished job without what it was trained from.
    """
    for job in jobs:
        folder.get_job(job).delete_result()
    for job in jobs:
        folder.get_job(job).clear()
        if job.stage:
            with suppress(OSError):  # other stages are there
                folder.get_job(job).path.parent.rmdir()


def find_outdated(folder: RunFolder, config: Config, jobs: list[JobName]) -> list[JobName]:
    """Return the jobs that a fresh start of some removes: all that were trained from them, then these."""
    present = folder.list_present_jobs()
    if TEACHER in jobs:  # everything was trained from it
        known, waiting = config, present
    else:
        known = keep_methods(folder, config, [job.method for job in present])
        waiting = [job for job in present if job in jobs]
        while more := [
            job for job in present if job not in waiting and {*list_sources(known, job)} & {*jobs, *waiting}
        ]:
            waiting += more
    found: list[JobName] = []
    while rest := [job for job in waiting if job not in found]:
        sources = {TEACHER, *(source for job in rest for source in list_sources(known, job))}
        found += [job for job in rest if job not in sources] or rest
    return found


def keep_methods(folder: RunFolder, config: Config, trained: list[str]) -> Config:
    """Return a config with the methods that a run has and it lacks, as they were trained.

    trained: methods that have files. One is left out where it takes something of a method that is gone.
    """
    if not trained or not (folder.path / "config.yaml").exists():
        return config
    old = folder.read_config().stages
    lacking = {name: old[name] for name in old if name in trained and name not in config.methods}
    while lost := [
        name for name, stages in lacking.items() if not _list_sources(stages) <= {*config.methods, *lacking}
    ]:
        for name in lost:
            del lacking[name]
    methods = {name: _expand_method(stages) for name, stages in lacking.items()}
    if not methods:
        return config
    return Config.model_validate({**config.model_dump(), "methods": {**config.methods, **methods}})


def _expand_method(stages: Sequence[Stage]) -> dict[str, Any]:
    """Return a method as a config section without defaults."""
    own = {f"stage{number}": stage.model_dump(mode="json") for number, stage in enumerate(stages, start=1)}
    return {"base": None, **own}


def _list_sources(stages: Sequence[Stage]) -> set[str]:
    return {method for stage in stages for method in list_prerequisites(stage)}
