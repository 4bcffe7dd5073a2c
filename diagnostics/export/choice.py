"""The student that is exported where none is named: the best one on validation images."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from diagnostics.names import join_names
from errors import UserError
from training.experiment import Experiment
from training.job_name import find_last_job


@dataclass(frozen=True)
class Choice:
    """A student of a run, and its top-1 in 0..1."""

    method: str
    seed: int
    val_top1: float
    test_top1: float

    @property
    def sentence(self) -> str:
        accuracy = f"{100 * self.val_top1:.1f} % on validation images, {100 * self.test_top1:.1f} % on test images"
        return f"best student by validation: {self.method} of seed {self.seed}, {accuracy}"


def choose_student(experiment: Experiment, seed: int | None) -> Choice:
    """Return the method of the highest mean validation accuracy over its seeds, of its best seed.

    seed: the only one to look at; None for all.

    Raises:
        UserError: no finished student was scored on validation images.
    """
    folder, found, finished = experiment.folder, dict[str, list[Choice]](), dict[str, None]()
    for method in experiment.config.stages:
        for number in folder.list_seeds() if seed is None else [seed]:
            job = folder.get_job(find_last_job(experiment.config, method, number))
            result = job.read_result() if job.has_result else {}
            if "test_top1" in result:
                finished[method] = None
            if "val_top1" in result:
                choice = Choice(method, number, result["val_top1"], result["test_top1"])
                found.setdefault(method, []).append(choice)
    if not found:
        which = (
            f"its finished students are {join_names(list(finished))}" if finished else "it has no finished student"
        )
        raise UserError(f"--export: {folder.path} has no validation images to choose by, use --model: {which}")
    best = max(found.values(), key=lambda choices: fmean(choice.val_top1 for choice in choices))
    return max(best, key=lambda choice: choice.val_top1)
