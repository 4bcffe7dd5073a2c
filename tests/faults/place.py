"""A run or study of small networks, and what a kill met in it."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from PIL import Image

from errors import UserError
from models.checkpoint import load
from settings.merge import merge
from tests.faults.commands import Started, start
from training.job_name import JobName
from training.run.run_folder import RunFolder

Kind = Literal["run", "study", "torchrun"]
KINDS: tuple[Kind, ...] = ("run", "study", "torchrun")
MADE_ANEW = ("timing.jsonl", "environment.json", "events.*")  # tell of time or of the machine
TIMED = (
    "eval/figures/cost.*",
    "eval/tables/cost.*",
    "eval/tables/models.*",
    "eval/report.*",
    "predictions.npz",
)  # latencies
LEFTOVERS = ("*.partial*", "*.lock", "checkpoint*.pt")
LOOK = 0.01  # seconds between two looks whether a first file is there
CONFIG: dict[str, Any] = {
    "name": "soak",
    "precision": "float32",
    "checkpoint_minutes": 0.002,  # several in an epoch
    "teacher": {"arch": "resnet8", "epochs": 3, "batch_size": 12, "cached_views": 2},
    "student": {"arch": "resnet8"},
    "losses": {"crd": {"num_negatives": 32, "dim": 8}},
    "training": {"epochs": 5, "batch_size": 12},
    "methods": {"two_stage": {"stage2": {"epochs": 2}}, "crd_kd": {}},
}
SHORT = {  # of a study's runs and of two processes
    "teacher": {"epochs": 1},
    "training": {"epochs": 2},
    "methods": {"two_stage": {"stage2": {"epochs": 1}}},
}
STUDY = {"shortcut": {"cue": "patch"}, "study": {"grid": [{"shortcut.conflicting": [0.1, 0.3]}]}}


def write_images(root: Path, per_class: int) -> None:
    """Class folders of noise in a colour each: so many training images a class, a quarter as many test images."""
    draw = np.random.default_rng(0)
    for label, name in enumerate(("ash", "birch", "cedar", "date")):
        colour = 64 + 128 * np.array([label & 1, label >> 1, 0])
        for part, count in (("train", per_class), ("test", per_class // 4)):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = draw.normal(colour, 60, (8, 8, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{number}.png")


@dataclass(frozen=True)
class Place:
    """Where a run or study and its caches are; a folder of its own for each, so that caches too are made anew."""

    folder: Path
    images: Path
    kind: Kind = "run"
    short: bool = False

    @cached_property
    def config(self) -> Path:
        """The config's file, written at the first call."""
        path = self.folder / "soak.yaml"
        values = merge(CONFIG, SHORT) if self.short or self.kind != "run" else CONFIG
        values = {**values, **(STUDY if self.kind == "study" else {})}
        data = {"source": "folder", "root": str(self.images), "image_size": 8, "crop": 1, "cache_dir": "cache"}
        self.folder.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump({**values, "data": data}), encoding="utf-8")
        return path

    @property
    def root(self) -> Path:
        return self.folder / "runs" / "soak"

    def start(self) -> Started:
        """Train what is not finished, and where all is, report."""
        if not self.is_trained():
            phase = ("--phase", "study") if self.kind == "study" else ("--phase", "all", "--resume")
            words = ("--config", str(self.config), "--output-dir", "runs", *phase, "--quiet")
            return start(self.folder, "main", words, torchrun=self.kind == "torchrun")
        return start(self.folder, "main_eval", ("runs/soak", "--quiet"))

    def first_file(self, started: Started) -> bool:
        """Wait until a command has written something; False where it ended before."""
        known = self._states()
        while started.wait(LOOK) is None:
            if self._states() - known:
                return True
        return False

    def _states(self) -> set[tuple[str, int]]:
        found = set()
        for top in ("runs", "cache"):
            for folder, _, names in os.walk(self.folder / top):  # which takes what goes meanwhile as gone
                for path in (os.path.join(folder, name) for name in names):
                    with suppress(FileNotFoundError):
                        found.add((path, os.stat(path).st_mtime_ns))
        return found

    def finish(self) -> list[float]:
        """Run each command that is left to its end; seconds of each from its first file on.

        Raises RuntimeError where one fails.
        """
        seconds = []
        while not self.is_reported():
            started = self.start()
            self.first_file(started)
            begun = time.perf_counter()
            self.see_that_it_ended_well(started)
            seconds.append(time.perf_counter() - begun)
        return seconds

    def see_that_it_ended_well(self, started: Started) -> None:
        """Wait for a command, and note that it came to its end.

        Raises RuntimeError with what it printed, where it failed.
        """
        code = started.wait(None)
        if code:
            said = started.errors.read_text(encoding="utf-8", errors="replace")
            raise RuntimeError(f"{self.folder}: exit code {code}: {said}")
        (self.folder / f"{started.script}.ended").touch()

    def jobs(self) -> list[tuple[RunFolder, JobName]]:
        """Jobs that have a folder, of a run or of all runs of a study."""
        runs = sorted(self.root.glob("*-seed*")) if self.kind == "study" else [self.root]
        return [(RunFolder(run), job) for run in runs for job in RunFolder(run).present()]

    def is_trained(self) -> bool:
        """Whether main.py has come to its end."""
        return (self.folder / "main.ended").exists()

    def is_reported(self) -> bool:
        """Whether main_eval.py has come to its end; a short one goes without."""
        return (self.folder / "main_eval.ended").exists() or (self.short and self.is_trained())

    def met(self) -> str:
        """In a word what was under way as the files are now: after a kill, what that met."""
        cache = self.folder / "cache"
        if not any(cache.glob("folder-*[0-9a-f]/meta.json")):
            return "decoding"
        if self.is_trained():
            return "report"
        if any(cache.glob("teacher-*/view*.partial")):
            return "caching"
        for folder, job in self.jobs():
            if not folder.job(job).marked:
                return job.short
        return "recording" if self.kind == "study" else "between jobs"

    def is_within_an_epoch(self) -> bool:
        """Whether a job's newest checkpoint was written within an epoch."""
        for path in self.root.rglob("checkpoint.pt"):
            try:
                return load(path)["part"] is not None
            except UserError:
                continue
        return False

    def files(self) -> dict[str, bytes]:
        """What must be the same, by path below the folder: all of runs and caches but what tells of time."""
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for top in ("runs", "cache")
            for path in sorted((self.folder / top).rglob("*"))
            if path.is_file() and not any(path.match(name) for name in (*MADE_ANEW, *TIMED, *LEFTOVERS))
        }

    def recorded(self) -> dict[str, bytes]:
        """Arrays of what main_eval.py recorded, by name; beside them stand latencies and the command's words."""
        found = {}
        for path in self.root.rglob("predictions.npz"):
            with np.load(path) as arrays:
                found |= {name: arrays[name].tobytes() for name in arrays.files if name not in ("meta", "context")}
        return found

    def leftovers(self) -> list[str]:
        """Files that a finished command must not leave."""
        return sorted(str(path) for pattern in LEFTOVERS for path in self.folder.rglob(pattern))
