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

import json
from dataclasses import dataclass
from pathlib import Path

from configs.reading import differing_keys, load_written, to_yaml
from configs.schema import Config
from dataset.prepare import TrainingData
from errors import UserError
from files import write_text
from training import distributed
from training.environment import environment
from training.identity import check_identity, write_identity
from training.job_folder import JobFolder
from training.job_name import TEACHER, JobName, needs, read_label
from training.run_lock import is_claimed


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
            UserError: the folder is no run.
        """
        if not (self.path / "config.yaml").exists():
            raise UserError(f"{self.path} is no run (no config.yaml in it): make one with python main.py")
        return load_written(self.path / "config.yaml")

    def seeds(self) -> list[int]:
        """Seeds that have a folder, in order."""
        names = [path.name.removeprefix("seed") for path in self.path.glob("seed*") if path.is_dir()]
        return sorted(int(name) for name in names if name.lstrip("-").isdigit())


def claim(
    folder: RunFolder, config: Config, data: TrainingData, *, fresh: bool, resume: bool, jobs: list[JobName]
) -> None:
    """Make the run folder ours to write in, or say why it is not.

    Args:
        folder: of the run.
        config: the resolved config.
        data: the images as they are now.
        fresh: remove what `jobs` left, and what was trained from that, and start over.
        resume: go on with unfinished jobs.
        jobs: what is about to be trained.

    Raises:
        UserError: an unfinished job without `fresh` or `resume`, or a run made with another config or from other
            images.
    """
    present = folder.present()
    outdated = _with_dependents(config, jobs, present) if fresh else []
    if (folder.path / "config.yaml").exists():
        keys = differing_keys(folder.config(), config)
        if keys and (not fresh or any(job not in outdated for job in present)):
            raise UserError(
                f"{folder.path} was made with other values of {', '.join(keys)}: choose another --set name=..., "
                "or start over with --phase all --fresh"
            )
        if any(job not in outdated for job in present):
            check_identity(folder.path, data)
    elif is_claimed(folder.path):
        raise UserError(f"{folder.path} holds files but no config.yaml: choose another --set name=...")
    unfinished = [folder.job(job) for job in jobs if folder.job(job).unfinished]
    if unfinished and not (fresh or resume):
        done = len(unfinished[0].history())
        raise UserError(
            f"{unfinished[0].path} is unfinished ({done} epochs done): "
            "go on with --resume or start over with --fresh"
        )
    distributed.barrier()  # every process has looked before the first of them writes
    if distributed.rank() == 0:
        for job in outdated:
            folder.job(job).clear()
        folder.path.mkdir(parents=True, exist_ok=True)
        write_identity(folder.path, data)
        write_text(folder.path / "config.yaml", to_yaml(config))
        write_text(folder.path / "environment.json", json.dumps(environment(), indent=2) + "\n")
    distributed.barrier()


def _with_dependents(config: Config, jobs: list[JobName], present: list[JobName]) -> list[JobName]:
    """Jobs and all that was trained from them: everything from the teacher, stage 2 from its features."""
    if TEACHER in jobs:
        return present
    found = list(jobs)
    while more := [job for job in present if job not in found and set(needs(config, job)) & set(found)]:
        found += more
    return found
