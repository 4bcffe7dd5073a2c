"""The folder of a run: which jobs it holds, what each of them needs, and whose it is to write in.

runs/NAME/config.yaml         the resolved config
runs/NAME/environment.json    versions, hardware, git state
runs/NAME/teacher/            one teacher for all seeds
runs/NAME/seed0/stage1/ ...   one folder a trained student: stage1, stage2, scratch, kd, crd, crd_kd,
                              and stage2_VARIANT, stage1_VARIANT for each variant of the config
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from configs.reading import differing_keys, load_config, to_yaml
from configs.schema import METHODS, Config
from errors import UserError
from files import write_text
from training import distributed
from training.environment import environment
from training.job_folder import JobFolder

STUDENT_JOBS = ("stage1", "stage2", *METHODS)


OF_VARIANTS = ("stage1_", "stage2_")


@dataclass(frozen=True)
class RunFolder:
    """Where the files of an experiment are; a variant's jobs have folders of other names."""

    path: Path
    renamed: Mapping[str, str] = field(default_factory=dict)

    @property
    def teacher(self) -> JobFolder:
        return JobFolder(self.path / "teacher")

    def job(self, seed: int, name: str) -> JobFolder:
        return JobFolder(self.path / f"seed{seed}" / self.renamed.get(name, name))

    def config(self) -> Config:
        """The config that the run was made with.

        Raises:
            UserError: the folder is no run.
        """
        if not (self.path / "config.yaml").exists():
            raise UserError(f"{self.path} is no run (no config.yaml in it): make one with python main.py")
        return load_config(self.path / "config.yaml")

    def seeds(self) -> list[int]:
        """Seeds that have a folder, in order."""
        names = [path.name.removeprefix("seed") for path in self.path.glob("seed*") if path.is_dir()]
        return sorted(int(name) for name in names if name.lstrip("-").isdigit())


def stage_job(config: Config, stage: str, variant: str | None) -> str:
    """Name of the folder of a stage: a variant has its own, but shares stage 1 where it changes nothing in it."""
    shared = variant is None or (stage == "stage1" and not config.variants[variant].crd)
    return stage if shared else f"{stage}_{variant}"


def needs(config: Config, job: str) -> list[str]:
    """Names of the jobs of the same seed whose weights a job starts from."""
    for variant in (None, *config.variants):
        if job == stage_job(config, "stage2", variant):
            kd = config.kd if variant is None else config.variant(variant).kd
            sources = [stage_job(config, "stage1", variant)] if kd.features == "stage1" else []
            sources += [kd.features] if kd.features in METHODS else []
            return sources + ([f"stage2_{kd.teacher_head}"] if kd.teacher_head else [])
    return []


def claim(folder: RunFolder, config: Config, *, fresh: bool, resume: bool, jobs: list[JobFolder]) -> None:
    """Make the run folder ours to write in, or say why it is not.

    Args:
        folder: of the run.
        config: the resolved config.
        fresh: remove what `jobs` left, and what was trained from that, and start over.
        resume: go on with unfinished jobs.
        jobs: what is about to be trained.

    Raises:
        UserError: an unfinished job without `fresh` or `resume`, or a run made with another config.
    """
    present = [job for job in _all_jobs(folder) if job.path.exists()]
    outdated = _with_dependents(folder, config, jobs, present) if fresh else []
    if (folder.path / "config.yaml").exists():
        keys = differing_keys(folder.config(), config)
        if keys and (not fresh or any(job not in outdated for job in present)):
            raise UserError(
                f"{folder.path} was made with other values of {', '.join(keys)}: choose another --set name=..., "
                "or start over with --phase all --fresh"
            )
    elif folder.path.exists() and any(folder.path.iterdir()):
        raise UserError(f"{folder.path} holds files but no config.yaml: choose another --set name=...")
    unfinished = [job for job in jobs if job.unfinished]
    if unfinished and not (fresh or resume):
        done = len(unfinished[0].history())
        raise UserError(
            f"{unfinished[0].path} is unfinished ({done} epochs done): "
            "go on with --resume or start over with --fresh"
        )
    distributed.barrier()  # every process has looked before the first of them writes
    if distributed.rank() == 0:
        for job in outdated:
            job.clear()
        folder.path.mkdir(parents=True, exist_ok=True)
        write_text(folder.path / "config.yaml", to_yaml(config))
        write_text(folder.path / "environment.json", json.dumps(environment(), indent=2) + "\n")
    distributed.barrier()


def _all_jobs(folder: RunFolder) -> list[JobFolder]:
    paths = [path for seed in folder.seeds() for path in sorted((folder.path / f"seed{seed}").iterdir())]
    return [folder.teacher, *(JobFolder(path) for path in paths if _is_job(path.name))]


def _is_job(name: str) -> bool:
    return name in STUDENT_JOBS or name.startswith(OF_VARIANTS)


def _with_dependents(
    folder: RunFolder, config: Config, jobs: list[JobFolder], present: list[JobFolder]
) -> list[JobFolder]:
    """Jobs and all that was trained from them: everything from the teacher, stage 2 from its features."""
    if folder.teacher in jobs:
        return present
    found = list(jobs)
    while more := [job for job in present if job not in found and _starts_from(config, job, found)]:
        found += more
    return found


def _starts_from(config: Config, job: JobFolder, others: list[JobFolder]) -> bool:
    return any(JobFolder(job.path.with_name(source)) in others for source in needs(config, job.name))
