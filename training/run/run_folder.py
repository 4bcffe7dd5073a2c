"""The folder of a run: its config and which jobs it holds.

runs/NAME/config.yaml         the resolved config
runs/NAME/environment.json    versions, hardware, git state
runs/NAME/identity.json       digests of the images, classes and normalisation that it was made from
runs/NAME/.lock               which process writes here, while it does
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
from training.run.record_file import is_as_signed, write_signed

if TYPE_CHECKING:  # with torch behind it, which whoever reads configs and recordings alone does not need
    from training.run.job_folder import JobFolder

SEED_FOLDER = re.compile(r"seed(0|-?[1-9][0-9]*)")  # as this program writes it: seed007 is somebody else's


@dataclass(frozen=True)
class RunFolder:
    """Where the files of an experiment are."""

    path: Path

    @property
    def teacher(self) -> JobFolder:
        return self.job(TEACHER)

    def job(self, name: JobName) -> JobFolder:
        from training.run.job_folder import JobFolder

        return JobFolder(self.path / name.path)

    def present(self) -> list[JobName]:
        """Return the jobs of which something is there; other folders are somebody else's."""
        found = [TEACHER]
        for seed in self.seeds():
            place = self.path / f"seed{seed}"
            folders = [path for path in sorted(place.glob("*/")) if not path.name.startswith(".")]
            for folder in folders:
                stages = sorted(folder.glob("stage[1-9]/"))
                paths = [path.relative_to(place) for path in stages or [folder]]
                found += [name for path in paths if (name := read_path(path, seed)) is not None]
        return [name for name in found if self.job(name).begun]

    def config(self) -> Config:
        """Read the config that the run was made with.

        Raises:
            UserError: the folder is no run, or its config is not as it was written.
        """
        path = self.path / "config.yaml"
        if not path.exists():
            raise UserError(f"{self.path} is no run (no config.yaml in it): make one with python main.py")
        if not path.is_file():
            raise UserError(f"{path} is no file: name another run, or remove it and start over")
        if not is_as_signed(path):
            raise UserError(
                f"{path} is not as it was written: put it back, or remove its first line if the change is yours"
            )
        return load_written(path)

    def seeds(self) -> list[int]:
        """Seeds that have a folder, in order."""
        names = [SEED_FOLDER.fullmatch(path.name) for path in self.path.glob("seed*") if path.is_dir()]
        return sorted(int(name[1]) for name in names if name is not None)


def write_config(path: Path, config: Config) -> None:
    """Write a resolved config as YAML with a digest, so that a change does not go unnoticed."""
    write_signed(path, to_yaml(config))
