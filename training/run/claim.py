"""Whose a run folder is to write in, and what a fresh start removes from it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from dataset.prepare import TrainingData
from errors import UserError
from settings.reading import differing_keys, show_keys
from settings.schema import Config, waited_for
from settings.stages import Stage
from training import distributed
from training.job_name import TEACHER, JobName, needs
from training.rates import differ_in_rates_only
from training.run.environment import environment
from training.run.identity import check_identity, write_identity
from training.run.record_file import write_record
from training.run.run_folder import RunFolder, write_config
from training.run.run_lock import is_claimed


def claim(
    folder: RunFolder, config: Config, data: TrainingData, *, fresh: bool, resume: bool, jobs: list[JobName]
) -> None:
    """Make the run folder ours to write in, or say why it is not.

    Args:
        folder: of the run.
        config: the resolved config.
        data: the images as they are now.
        fresh: remove what `jobs` left, and what was trained from that, and start over.
        resume: go on with unfinished jobs, at other learning rates than before where the config says so.
        jobs: what is about to be trained.

    Raises:
        UserError: an unfinished job without `fresh` or `resume`, or a run made with another config or from other
            images.
    """
    outdated = find_outdated(folder, config, jobs) if fresh else []
    kept = [job for job in folder.present() if job not in outdated]
    check_config(folder, config, kept, fresh=fresh, resume=resume)
    if kept and (folder.path / "config.yaml").exists():
        check_identity(folder.path, data)
    for job in kept:
        if job in jobs:
            folder.job(job).refuse_lacking()
    unfinished = [folder.job(job) for job in jobs if folder.job(job).unfinished]
    if unfinished and not (fresh or resume):
        done = unfinished[0].epochs_done()
        raise UserError(
            f"{unfinished[0].path} is unfinished ({done} epochs done): "
            "go on with --resume or start over with --fresh"
        )
    distributed.barrier()  # every process has looked before the first of them writes
    if distributed.rank() == 0:
        _clear(folder, outdated)
        folder.path.mkdir(parents=True, exist_ok=True)
        write_identity(folder.path, data)
        write_config(folder.path / "config.yaml", keep_methods(folder, config, [job.method for job in kept]))
        write_record(folder.path / "environment.json", environment())
    distributed.barrier()


def check_config(folder: RunFolder, config: Config, kept: list[JobName], *, fresh: bool, resume: bool) -> None:
    """Raise `UserError` where a run has another config, and keeps jobs that were trained by it.

    Args: as `claim`, with the jobs that stay.
    """
    renewed = fresh and not kept
    if resume and _may_change_rates(folder, config, kept):
        return
    if (folder.path / "config.yaml").exists():
        keys = [] if renewed else differing_keys(folder.config(), config)
        if keys:
            raise UserError(
                f"{folder.path} was made with other values of {show_keys(keys)}: choose another --set name=..., "
                "or start over with --phase all --fresh"
            )
    elif is_claimed(folder.path):
        raise UserError(f"{folder.path} holds files but no config.yaml: choose another --set name=...")


def _may_change_rates(folder: RunFolder, config: Config, present: list[JobName]) -> bool:
    """Return whether a config has other learning rates at most, and those of unfinished jobs."""
    if not (folder.path / "config.yaml").exists():
        return False
    ended = [job for job in present if folder.job(job).marked]
    return differ_in_rates_only(folder.config(), config, ended)


def _clear(folder: RunFolder, jobs: list[JobName]) -> None:
    """Remove what jobs left, those that others were trained from last.

    No mark outlives that of a job it was trained from, wherever this is interrupted.
    """
    for job in jobs:
        folder.job(job).unmark()
    for job in jobs:
        folder.job(job).clear()
        if job.stage:
            with suppress(OSError):  # other stages are there
                folder.job(job).path.parent.rmdir()


def find_outdated(folder: RunFolder, config: Config, jobs: list[JobName]) -> list[JobName]:
    """Return what a fresh start of jobs removes: all that was trained from them, and then they."""
    present = folder.present()
    if TEACHER in jobs:  # everything was
        known, waiting = config, present
    else:
        known = keep_methods(folder, config, [job.method for job in present])
        waiting = [job for job in present if job in jobs]
        while more := [job for job in present if job not in waiting and {*needs(known, job)} & {*jobs, *waiting}]:
            waiting += more
    found: list[JobName] = []
    while rest := [job for job in waiting if job not in found]:
        sources = {TEACHER, *(source for job in rest for source in needs(known, job))}
        found += [job for job in rest if job not in sources] or rest
    return found


def keep_methods(folder: RunFolder, config: Config, trained: list[str]) -> Config:
    """Return a config with those methods of the run before that it lacks, as they were trained.

    trained: methods of which something is there; one that takes something of a method that is gone is left out.
    """
    if not trained or not (folder.path / "config.yaml").exists():
        return config
    old = folder.config().stages
    lacking = {name: old[name] for name in old if name in trained and name not in config.methods}
    while lost := [
        name for name, stages in lacking.items() if not _sources(stages) <= {*config.methods, *lacking}
    ]:
        for name in lost:
            del lacking[name]
    methods = {name: _spell_out(stages) for name, stages in lacking.items()}
    if not methods:
        return config
    return Config.model_validate({**config.model_dump(), "methods": {**config.methods, **methods}})


def _spell_out(stages: Sequence[Stage]) -> dict[str, Any]:
    """Return a method as a section that says everything."""
    own = {f"stage{number}": stage.model_dump(mode="json") for number, stage in enumerate(stages, start=1)}
    return {"base": None, **own}


def _sources(stages: Sequence[Stage]) -> set[str]:
    return {method for stage in stages for method in waited_for(stage)}
