"""The folder of a run: its config and its jobs.

runs/NAME/config.yaml         the resolved config
runs/NAME/environment.json    versions, hardware, git state
runs/NAME/identity.json       digests of the images, classes and normalisation that it was made from
runs/NAME/.lock               the process that writes here, while it does
runs/NAME/teacher/            one teacher for all seeds
runs/NAME/seed0/kd/ ...       one folder a trained student: METHOD, or METHOD/stage1, METHOD/stage2, ...
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from errors import UserError
from settings.reading import load_written, to_yaml
from settings.schema import Config
from training.job_name import TEACHER, JobName, read_path
from training.run.record_file import has_valid_signature, write_signed

if TYPE_CHECKING:  # imports torch, which reading configs and recordings does not need
    from training.run.job_folder import JobFolder

SEED_FOLDER = re.compile(r"seed(0|-?[1-9][0-9]*)")  # other spellings, such as seed007, are not of this program


@dataclass(frozen=True)
class RunFolder:
    """Files of a run."""

    path: Path

    @property
    def teacher(self) -> JobFolder:
        return self.get_job(TEACHER)

    def get_job(self, name: JobName) -> JobFolder:
        """Return the folder of a job."""
        from training.run.job_folder import JobFolder

        return JobFolder(self.path / name.path)

    def list_present_jobs(self) -> list[JobName]:
        """List the jobs that have files; other folders are ignored."""
        found = [TEACHER]
        for seed in self.list_seeds():
            place = self.path / f"seed{seed}"
            for folder in sorted(place.glob("[!.]*/")):
                paths = sorted(folder.glob("stage[1-9]/")) or [folder]
                names = [read_path(path.relative_to(place), seed) for path in paths]
                found += [name for name in names if name is not None]
        return [name for name in found if self.get_job(name).has_files]

    def read_config(self) -> Config:
        """Read the config that the run was made with.

        Raises:
            UserError: the folder is no run, or its config was changed.
        """
        path = self.path / "config.yaml"
        if not path.exists():
            raise UserError(f"{self.path} is no run (no config.yaml in it): make one with python main.py")
        if not path.is_file():
            raise UserError(f"{path} is no file: name another run, or remove it and start over")
        if not has_valid_signature(path):
            raise UserError(
                f"{path} is not as it was written: put it back, or remove its first line if the change is yours"
            )
        return load_written(path)

    def is_study(self) -> bool:
        """Return True for the folder of a study.

        Runs below it were recorded, or it has a grid and no run of its own.
        """
        if not (self.path / "config.yaml").exists():
            return False
        return any(self.path.glob("*/*/cues.json")) or bool(
            self.read_config().study.grid and not self.list_seeds()
        )

    def list_seeds(self) -> list[int]:
        """List the seeds that have a folder, in order."""
        names = [SEED_FOLDER.fullmatch(path.name) for path in self.path.glob("seed*") if path.is_dir()]
        return sorted(int(name[1]) for name in names if name is not None)


def write_config(path: Path, config: Config) -> None:
    """Write a resolved config as YAML with a digest, which shows a change."""
    write_signed(path, to_yaml(config))
