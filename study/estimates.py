"""What the jobs of a study that are still to be trained will take: one of each kind is tried, others counted."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import replace

from study.grid import StudyRun
from study.plan import StudyRuns
from study.sharing import fingerprint
from training.estimates import Estimate, Task, alike, estimate
from training.job_name import TEACHER
from training.phases import Job
from training.teacher import is_given


def to_train(study: StudyRuns) -> Iterator[tuple[StudyRun, Job]]:
    """Jobs of this shard's runs that are neither finished nor copied from another run."""
    made: set[str] = set()
    for run in study.mine:
        for job in study.jobs(run):
            key = fingerprint(run.config, job.name)
            if not (job.folder.finished or key in made or study.twin(run, job) is not None):
                yield run, job
            made.add(key)


def estimate_study(study: StudyRuns, quiet: bool) -> list[Estimate]:
    """A line a kind of job, by what it is called and what a step of it costs."""
    kinds: dict[Hashable, tuple[StudyRun, Job, int]] = {}
    for run, job in to_train(study):
        key = (job.name.label, job.epochs, alike(run.config, job.name))
        first_run, first_job, count = kinds.get(key, (run, job, 0))
        kinds[key] = first_run, first_job, count + 1
    tasks = [_task(study, *kind) for kind in kinds.values()]
    return [replace(line, what=line.what.partition(" seed ")[0]) for line in estimate(tasks, quiet)]


def _task(study: StudyRuns, run: StudyRun, job: Job, count: int) -> Task:
    experiment = study.open(run)
    given = job.name == TEACHER and is_given(experiment)
    return Task(job, experiment, kept=given, count=count)
