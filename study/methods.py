"""The students of a run that a study compares, and the folder of their recording."""

from __future__ import annotations

from pathlib import Path

from settings.schema import Config
from study.grid import StudyRun
from training.job_name import JobName, find_last_job
from training.run.run_folder import RunFolder


def find_recording(run: StudyRun, folder: RunFolder) -> Path:
    """Return the folder of cues.npz and cues.json."""
    return folder.path / f"seed{run.seed}"


def list_students(config: Config, seed: int) -> dict[str, JobName]:
    """Return the methods that are compared, each with the job of its final weights.

    A method that ends with features alone has no classifier to compare.
    """
    return {
        method: find_last_job(config, method, seed)
        for method, stages in config.stages.items()
        if stages[-1].has_answers
    }


def is_end_to_end(config: Config, method: str) -> bool:
    """Return True where a method trains a new student in one stage."""
    stages = config.stages[method]
    return len(stages) == 1 and stages[0].starts_from is None
