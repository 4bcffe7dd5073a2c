"""What a training of a run is called, what it starts from, and the one place where names of folders are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from configs.networks import Teacher
from configs.schema import Config
from configs.stages import CRD, KD, METHODS, Baselines

PHASES = ("teacher", "crd", "kd", "baselines", "all")
NEXT = {"teacher": "--phase crd", "crd": "--phase kd", "kd": "--phase baselines"}
Settings = Teacher | CRD | KD | Baselines
STAGES: tuple[Literal["stage1", "stage2"], ...] = ("stage1", "stage2")


@dataclass(frozen=True)
class JobName:
    """One training: of the teacher, of a stage, or of a baseline."""

    kind: Literal["teacher", "stage1", "stage2", "baseline"]
    seed: int | None = None  # None for the teacher, which all seeds share
    of: str = ""  # a baseline's method or variant, a stage's variant; empty for the two stages of two_stage itself

    @property
    def label(self) -> str:
        """Without the seed: the folder's name."""
        if self.kind == "baseline":
            return self.of if self.of in METHODS else f"baseline_{self.of}"
        return f"{self.kind}_{self.of}" if self.of else self.kind

    @property
    def path(self) -> Path:
        """Below the run's folder."""
        return Path(self.label) if self.seed is None else Path(f"seed{self.seed}", self.label)

    @property
    def title(self) -> str:
        """As a person reads it."""
        return self.label if self.seed is None else f"{self.label} seed {self.seed}"

    @property
    def section(self) -> str:
        """Key of the config's section that has its settings."""
        return {"stage1": "crd", "stage2": "kd", "baseline": "baselines"}.get(self.kind, "teacher")


TEACHER = JobName("teacher")


def stage1(seed: int, variant: str = "") -> JobName:
    return JobName("stage1", seed, variant)


def stage2(seed: int, variant: str = "") -> JobName:
    return JobName("stage2", seed, variant)


def baseline(seed: int, method: str) -> JobName:
    return JobName("baseline", seed, method)


def read_label(label: str, seed: int) -> JobName | None:
    """The job of a folder of a seed, None for a folder that is none."""
    if label in METHODS:
        return baseline(seed, label)
    if label.startswith("baseline_"):
        return baseline(seed, label.removeprefix("baseline_"))
    for stage in STAGES:
        if label == stage or label.startswith(f"{stage}_"):
            return JobName(stage, seed, label.removeprefix(stage).removeprefix("_"))
    return None


def stage1_of(config: Config, seed: int, variant: str = "") -> JobName:
    """The stage 1 that a variant's stage 2 starts from: its own only where it changes something in it."""
    return stage1(seed, variant if variant and config.variants[variant].crd else "")


def config_of(config: Config, job: JobName) -> Config:
    """The settings of a job: the config's, or as its variant changes them."""
    if job.kind == "baseline":
        return config.baseline(job.of)
    return config.variant(job.of) if job.kind in STAGES and job.of else config


def settings_of(config: Config, job: JobName) -> Settings:
    """The section that says how a job is trained, as its variant changes it."""
    settings: Settings = getattr(config_of(config, job), job.section)
    return settings


def starts_from(config: Config, job: JobName) -> list[JobName]:
    """The jobs of the same seed whose weights a job goes on from."""
    if job.kind != "stage2" or job.seed is None or not _is_known(config, job):
        return []
    kd = config_of(config, job).kd
    if kd.features == "stage1":
        return [stage1_of(config, job.seed, job.of)]
    return [baseline(job.seed, kd.features)] if kd.features in METHODS else []


def needs(config: Config, job: JobName) -> list[JobName]:
    """The jobs of the same seed that come before a job: whose weights, classifier or errors it takes."""
    if job.seed is None or not _is_known(config, job):
        return []
    sources, own = starts_from(config, job), config_of(config, job)
    if job.kind == "stage2" and own.kd.teacher_head:
        sources.append(stage2(job.seed, own.kd.teacher_head))
    of_kind = {"stage1": own.crd, "stage2": own.kd, "baseline": own.baselines}
    errors_of = of_kind[job.kind].errors_of
    return [*sources, baseline(job.seed, errors_of)] if errors_of else sources


def _is_known(config: Config, job: JobName) -> bool:
    """Whether the config still has what a folder's name says."""
    if job.kind == "baseline":
        return job.of in METHODS or job.of in config.baselines.variants
    return not job.of or job.of in config.variants
