"""Names of trainings: folder, method and stage of a job, and its sources."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from settings.schema import TEACHER as TEACHER_NAME
from settings.schema import Config, list_prerequisites
from settings.stages import Stage

PHASES = ("teacher", "crd", "kd", "baselines", "all")
STAGE_FOLDER = re.compile(r"stage([1-9])")


@dataclass(frozen=True)
class JobName:
    """One training: of the teacher, or one stage of a method for one seed."""

    method: str
    seed: int | None = None  # None for the teacher, which all seeds share
    stage: int = 0  # from 1, or 0 for the only stage of a method

    @property
    def label(self) -> str:
        """Without the seed: the folder's name."""
        return f"{self.method}/stage{self.stage}" if self.stage else self.method

    @property
    def path(self) -> Path:
        """Below the run's folder."""
        return Path(self.label) if self.seed is None else Path(f"seed{self.seed}", self.label)

    @property
    def short(self) -> str:
        """As lines of progress have it: "two_stage stage 1"."""
        return f"{self.method} stage {self.stage}" if self.stage else self.method

    @property
    def title(self) -> str:
        """As a person reads it."""
        return self.short if self.seed is None else f"{self.short} seed {self.seed}"

    @property
    def key(self) -> str:
        """Key of the config's section on this training."""
        return TEACHER_NAME if self == TEACHER else f"methods.{self.method}.stage{self.number}"

    @property
    def number(self) -> int:
        """The number of the stage, from 1."""
        return self.stage or 1


TEACHER = JobName(TEACHER_NAME)


def read_path(path: Path, seed: int) -> JobName | None:
    """Return the job of a folder below a seed's, None for other folders."""
    parts = path.parts
    match = STAGE_FOLDER.fullmatch(parts[-1])
    if len(parts) == 2 and match:
        return JobName(parts[0], seed, int(match[1]))
    return JobName(parts[0], seed) if len(parts) == 1 else None


def find_job(config: Config, method: str, number: int, seed: int) -> JobName:
    """Return the job of a stage: the first method's with the same stages up to it."""
    wanted = config.stages[method][:number]
    owner = next(name for name, stages in config.stages.items() if stages[:number] == wanted)
    return JobName(owner, seed, number if len(config.stages[owner]) > 1 else 0)


def list_method_jobs(config: Config, method: str, seed: int) -> list[JobName]:
    """Return the jobs of a method's stages, in order."""
    return [find_job(config, method, number, seed) for number in range(1, len(config.stages[method]) + 1)]


def find_last_job(config: Config, method: str, seed: int) -> JobName:
    """Return the job whose weights are a method's result."""
    return list_method_jobs(config, method, seed)[-1]


def is_known(config: Config, job: JobName) -> bool:
    """Return whether the config has the job of a folder."""
    return job == TEACHER or len(config.stages.get(job.method, ())) >= job.number


def get_stage(config: Config, job: JobName) -> Stage:
    """Return what a job trains and how."""
    return config.teacher_stage if job == TEACHER else config.stages[job.method][job.number - 1]


def count_earlier_epochs(config: Config, job: JobName) -> int:
    """Return the epochs before a job, from which order and views of images follow."""
    if job == TEACHER:
        return 0
    return sum(stage.epochs for stage in config.stages[job.method][: job.number - 1])


def uses_teacher_network(config: Config, job: JobName) -> bool:
    """Return whether a job trains the teacher's network."""
    return job == TEACHER or (is_known(config, job) and config.stages[job.method][0].starts_from == TEACHER_NAME)


def find_start(config: Config, job: JobName) -> list[JobName]:
    """Return the job whose weights a job goes on from, or none."""
    if job == TEACHER or job.seed is None or not is_known(config, job):
        return []
    if job.number > 1:
        return [find_job(config, job.method, job.number - 1, job.seed)]
    source = get_stage(config, job).starts_from
    return [] if source in (None, TEACHER_NAME) else [find_last_job(config, str(source), job.seed)]


def list_chain(config: Config, job: JobName) -> list[JobName]:
    """Return the jobs whose weights lead to a job's, in order, the job itself last."""
    sources = find_start(config, job)
    return [*(list_chain(config, sources[0]) if sources else []), job]


def has_connector(config: Config, job: JobName) -> bool:
    """Return whether a job's stage, or one before it, puts a connector behind the student."""
    return any(is_known(config, one) and get_stage(config, one).connector for one in list_chain(config, job))


def list_sources(config: Config, job: JobName) -> list[JobName]:
    """Return the jobs whose weights, classifier or errors a job takes."""
    if job == TEACHER or job.seed is None or not is_known(config, job):
        return []
    named = [find_last_job(config, method, job.seed) for method in list_prerequisites(get_stage(config, job))]
    return list(dict.fromkeys([*find_start(config, job), *named]))


def list_jobs(config: Config, phase: str, seed: int, methods: list[str]) -> list[JobName]:
    """Return the jobs of a phase for one seed, with those that they need.

    crd has the first stages, kd the later ones, baselines the methods of one stage.
    """
    waiting = [job for method in methods for job in list_method_jobs(config, method, seed)]
    found: list[JobName] = []
    while waiting:
        job = waiting.pop(0)
        if job in found:
            continue
        lacking = [source for source in list_sources(config, job) if source not in found]
        if lacking:
            waiting = [*lacking, job, *waiting]
        else:
            found.append(job)
    return [job for job in found if phase in ("all", find_phase(job))]


def find_phase(job: JobName) -> str:
    """Return the phase that trains a job."""
    if job == TEACHER:
        return "teacher"
    return ("baselines", "crd")[job.stage] if job.stage < 2 else "kd"
