"""The students of a run that a study compares, and where they are recorded."""

from __future__ import annotations

from pathlib import Path

from configs.schema import Config
from configs.stages import METHODS
from study.grid import StudyRun
from training.job_name import JobName, baseline, stage2
from training.run_folder import RunFolder


def record_folder(run: StudyRun, folder: RunFolder) -> Path:
    return (folder.path / stage2(run.seed).path).parent


def methods_of(config: Config, seed: int) -> dict[str, JobName]:
    """The students that are compared, with the names of their jobs."""
    names = [name for name in METHODS if name in config.baselines.methods]
    baselines: dict[str, JobName] = {name: baseline(seed, name) for name in (*names, *config.baselines.variants)}
    variants = {name: stage2(seed, name) for name in config.variants}
    return {**baselines, "two_stage": stage2(seed), **variants}
