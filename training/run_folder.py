"""The folder of a run: which jobs it holds, what each of them needs, and whose it is to write in.

runs/NAME/config.yaml         the resolved config
runs/NAME/environment.json    versions, hardware, git state
runs/NAME/identity.json       digests of the images, classes and normalisation that it was made from
runs/NAME/.lock               which process writes here, while it does
runs/NAME/teacher/            one teacher for all seeds
runs/NAME/seed0/stage1/ ...   one folder a trained student: stage1, stage2, scratch, kd, crd, crd_kd,
                              and stage2_VARIANT, stage1_VARIANT for each variant of the config
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from configs.reading import differing_keys, load_written, to_yaml
from configs.schema import Config
from dataset.prepare import TrainingData
from errors import UserError
from training import distributed
from training.environment import environment
from training.identity import check_identity, write_identity
from training.job_folder import JobFolder
from training.job_name import TEACHER, JobName, needs, read_label
from training.rates import only_rates_of
from training.record_file import is_as_signed, write_record, write_signed
from training.run_lock import is_claimed

SEED_FOLDER = re.compile(r"seed(0|-?[1-9][0-9]*)")  # as this program writes it: seed007 is somebody else's


@dataclass(frozen=True)
class RunFolder:
    """Where the files of an experiment are."""

    path: Path

    @property
    def teacher(self) -> JobFolder:
        return self.job(TEACHER)

    def job(self, name: JobName) -> JobFolder:
        return JobFolder(self.path / name.path)

    def present(self) -> list[JobName]:
        """Jobs that have a folder."""
        labels = [
            (path.name, seed) for seed in self.seeds() for path in sorted((self.path / f"seed{seed}").iterdir())
        ]
        read = [read_label(label, seed) for label, seed in labels]
        return [name for name in (TEACHER, *read) if name is not None and self.job(name).path.exists()]

    def config(self) -> Config:
        """The config that the run was made with.

        Raises:
            UserError: the folder is no run, or its config is not as it was written.
        """
        path = self.path / "config.yaml"
        if not path.exists():
            raise UserError(f"{self.path} is no run (no config.yaml in it): make one with python main.py")
        if not path.is_file():
            raise UserError(f"{path} is no file: name another run, or remove it and start over")
        if not is_as_signed(path):
            raise UserError(
                f"{path} is not as it was written: put it back, or remove its first line if the change is yours"
            )
        return load_written(path)

    def seeds(self) -> list[int]:
        """Seeds that have a folder, in order."""
        names = [SEED_FOLDER.fullmatch(path.name) for path in self.path.glob("seed*") if path.is_dir()]
        return sorted(int(name[1]) for name in names if name is not None)


def write_config(path: Path, config: Config) -> None:
    """Atomically write a resolved config as YAML with a digest, so that a change does not go unnoticed."""
    write_signed(path, to_yaml(config))


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
    present = folder.present()
    outdated = with_dependents(config, jobs, present) if fresh else []
    kept = [job for job in present if job not in outdated]
    if not (resume and _may_change_rates(folder, config, kept)):
        _check_config(folder, config, renewed=fresh and not kept)
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
        _clear(folder, config, outdated)
        folder.path.mkdir(parents=True, exist_ok=True)
        write_identity(folder.path, data)
        write_config(folder.path / "config.yaml", config)
        write_record(folder.path / "environment.json", environment())
    distributed.barrier()


def _check_config(folder: RunFolder, config: Config, renewed: bool) -> None:
    """Raise `UserError` where a run that is not `renewed` has another config."""
    if (folder.path / "config.yaml").exists():
        keys = [] if renewed else differing_keys(folder.config(), config)
        if keys:
            raise UserError(
                f"{folder.path} was made with other values of {', '.join(keys)}: choose another --set name=..., "
                "or start over with --phase all --fresh"
            )
    elif is_claimed(folder.path):
        raise UserError(f"{folder.path} holds files but no config.yaml: choose another --set name=...")


def _may_change_rates(folder: RunFolder, config: Config, present: list[JobName]) -> bool:
    """Whether a run can go on with this config: it has other learning rates at most, and for unfinished jobs."""
    if not (folder.path / "config.yaml").exists():
        return False
    ended = [job for job in present if folder.job(job).marked]
    return only_rates_of(folder.config(), config, ended, present)


def _clear(folder: RunFolder, config: Config, jobs: list[JobName]) -> None:
    """Remove what jobs left. No mark outlives that of a job it was trained from, wherever this is interrupted."""
    waiting = list(jobs)
    while waiting:
        sources = {TEACHER, *(source for job in waiting for source in needs(config, job))}
        for job in [job for job in waiting if job not in sources] or list(waiting):
            folder.job(job).unmark()
            waiting.remove(job)
    for job in jobs:
        folder.job(job).clear()


def with_dependents(config: Config, jobs: list[JobName], present: list[JobName]) -> list[JobName]:
    """Jobs and all that was trained from them: everything from the teacher, stage 2 from its features."""
    if TEACHER in jobs:
        return present
    found = list(jobs)
    while more := [job for job in present if job not in found and set(needs(config, job)) & set(found)]:
        found += more
    return found
