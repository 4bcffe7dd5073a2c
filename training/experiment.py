"""An experiment: its config, data, machine and run folder, and the networks that its phases share.

runs/NAME/config.yaml         the resolved config
runs/NAME/environment.json    versions, hardware, git state
runs/NAME/teacher/            one teacher for all seeds
runs/NAME/seed0/stage1/ ...   one folder a trained student: stage1, stage2, scratch, kd, crd, crd_kd,
                              and stage2_VARIANT, stage1_VARIANT for each variant of the config
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from config import METHODS, Config, Network
from config_file import differing_keys, load_config, to_yaml
from dataset.loader import TrainingData
from errors import UserError
from files import write_text
from machine import Machine
from models import build_model
from models.taps import TappedModel, default_taps
from training import distributed
from training.checkpoint import load_weights
from training.engine import seed_everything
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


@dataclass(frozen=True)
class Experiment:
    """All that a phase needs to know."""

    config: Config
    data: TrainingData
    machine: Machine
    folder: RunFolder

    def variant(self, name: str) -> Experiment:
        """The same with a variant's settings, and its own folders as those of stage 1 and 2."""
        stages = {stage: stage_job(self.config, stage, name) for stage in ("stage1", "stage2")}
        return replace(self, config=self.config.variant(name), folder=replace(self.folder, renamed=stages))

    def build(self, network: Network) -> nn.Module:
        """A network for this data set, with fresh (or torchvision's) weights, on the CPU."""
        return build_model(
            network.arch,
            self.data.num_classes,
            stem=network.stem,
            weights=network.weights,
            image_size=self.config.data.image_size,
        )

    def new_student(self, seed: int) -> nn.Module:
        """The student as every method with this seed starts from, on the device."""
        seed_everything(seed)
        return self.machine.place(self.build(self.config.student))

    def trained(self, network: Network, job: JobFolder) -> nn.Module:
        """A finished job's network in evaluation mode on the device."""
        model = self.build(network.model_copy(update={"weights": None}))
        load_weights(model, job.model, network.arch)
        return self.machine.place(model).eval()

    def tapped(self, model: nn.Module, network: Network) -> TappedModel:
        """A network that also gives its taps: those of the config, or its last two blocks."""
        return self.machine.place(TappedModel(model, network.taps or default_taps(model)))


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


def environment() -> dict[str, Any]:
    """Versions, hardware and git state that a run's numbers came from."""
    packages = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "pydantic")
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: metadata.version(name) for name in packages},
        "processor": torch.cpu.get_capabilities().get("cpu_name", platform.processor())
        if hasattr(torch.cpu, "get_capabilities")
        else platform.processor(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "processes": distributed.world_size(),
        "git": _git_state(),
    }


def _git_state() -> dict[str, Any]:
    def ask(*words: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "changed": bool(ask("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "changed": None}
