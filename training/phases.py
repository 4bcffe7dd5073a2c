"""The jobs of each `--phase`, in order, and their training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dataset.loader import count_batches
from dataset.prepare import TrainingData
from settings.schema import Config
from settings.stages import Stage
from training import distributed
from training.distributed import print_rank0
from training.evaluation import show_measures
from training.experiment import Experiment
from training.job_name import TEACHER, JobName, get_stage, list_jobs
from training.pace import Pace
from training.run.job_folder import JobFolder
from training.run.run_folder import RunFolder
from training.run.tensorboard import write_hparams
from training.setup import train_stage
from training.stepping import count_steps
from training.teacher import is_given

SHOWN = ("test_top1", "cosine_", "cka_", "explained_")  # how names of measures begin that the line of a job shows


@dataclass(frozen=True)
class Job:
    """One training of one network."""

    name: JobName
    folder: JobFolder
    stage: Stage

    def count_batches(self, data: TrainingData) -> int:
        """Return the batches of an epoch."""
        images = data.balanced if self.stage.images == "balanced" and data.balanced else data.train
        return count_batches(len(images), self.stage.batch_size)

    def count_images(self, data: TrainingData) -> int:
        """Return the images that all epochs show, each as often as it comes."""
        return self.stage.epochs * self.count_batches(data) * self.stage.batch_size

    def count_steps(self, data: TrainingData) -> int:
        """Return the optimizer's steps of an epoch."""
        return count_steps(self.count_batches(data), self.stage.optimizer.accumulate)


def list_phase_jobs(phase: str, config: Config, folder: RunFolder, methods: Sequence[str] = ()) -> list[Job]:
    """Return the trainings of a phase, each after those that it needs.

    methods: to train, with what they need; all of the config by default.
    """
    names = [TEACHER] if phase in ("teacher", "all") else []
    if phase != "teacher":
        for seed in config.seeds:
            names += list_jobs(config, phase, seed, list(methods or config.methods))
    return [Job(name, folder.get_job(name), get_stage(config, name)) for name in names]


def list_waiting(jobs: Sequence[Job], experiment: Experiment, removed: Sequence[JobName] = ()) -> list[Job]:
    """Return the jobs that need training: unfinished, and no given teacher.

    removed: finished jobs that have to be trained again.
    """
    unfinished = [job for job in jobs if not job.folder.is_finished or job.name in removed]
    return [job for job in unfinished if not (job.name == TEACHER and is_given(experiment))]


def run_jobs(jobs: list[Job], experiment: Experiment) -> None:
    """Train the jobs that are not finished, and print a line for each."""
    waiting, pace = list_waiting(jobs, experiment), Pace()
    for job in jobs:
        if job in waiting:
            waiting.remove(job)
            pace.waiting = sum(other.count_images(experiment.data) for other in waiting)
            train_job(job, experiment, pace)
            print_rank0(f"{job.name.title}: done, {_describe_result(job.folder)}, files in {job.folder.path}")
        elif job.folder.is_finished:
            if distributed.rank() == 0:
                job.folder.drop_checkpoints()
            print_rank0(f"{job.name.title}: finished before, kept")


def train_job(job: Job, experiment: Experiment, pace: Pace | None = None) -> None:
    """Train one network, and write its settings and results for TensorBoard."""
    train_stage(experiment, job.name, pace)
    write_hparams(experiment.config, job.name, job.folder)


def _describe_result(folder: JobFolder) -> str:
    return show_measures({name: value for name, value in folder.read_result().items() if name.startswith(SHOWN)})


def find_next_phase(phase: str, config: Config) -> str | None:
    """Return the phase that comes after one, None where everything is trained."""
    staged = any(len(stages) > 1 for stages in config.stages.values())
    single = any(len(stages) == 1 for stages in config.stages.values())
    order = ["teacher", *(["crd", "kd"] if staged else []), *(["baselines"] if single else [])]
    rest = order[order.index(phase) + 1 :] if phase in order else []
    return rest[0] if rest else None
