"""A small run to break, commands in this process, and damage to files."""

from __future__ import annotations

import contextlib
import io
import os
import random
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import yaml
from PIL import Image

import main
import main_eval
from dataset.prepare import prepare
from dataset.sources import load_source
from errors import run_command, warn
from models.machine import Machine
from settings.merge import merge
from settings.reading import load_config
from training.experiment import Experiment
from training.run.job_folder import JobFolder
from training.run.run_folder import RunFolder

CLASSES = ("ash", "birch", "cedar")
JOBS = ("teacher", "seed0/two_stage/stage1", "seed0/two_stage/stage2", "seed0/scratch")
CONFIG: dict[str, Any] = {
    "name": "small",
    "precision": "float32",
    "teacher": {"arch": "resnet8", "epochs": 1, "batch_size": 12, "cached_views": 2},
    "student": {"arch": "resnet8"},
    "losses": {"crd": {"num_negatives": 8, "dim": 4}},
    "training": {"epochs": 2, "batch_size": 12},
    "methods": {"two_stage": {"stage2": {"epochs": 1}}, "scratch": {"epochs": 1}},
}
LONG = ("--phase", "teacher", "--set", "name=long", "teacher.epochs=3")  # a run that stays unfinished
STUDY = ("--phase", "study", "--set", "name=study", "shortcut.cue=patch", "teacher.cached_views=0")
Snapshot = dict[Path, tuple[bytes, int]]  # content and time of change by path


@dataclass(frozen=True)
class Outcome:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    def check_line(self, pattern: str = "", code: int = 2) -> None:
        """Assert that the command ended with an exit code and one line on stderr that matches."""
        assert self.code == code, self
        assert self.err.count("\n") == 1 and self.err.startswith("error: "), self
        assert re.search(pattern, self.err), self


@dataclass(frozen=True)
class Workspace:
    """A folder with images, a config, caches and runs."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "small.yaml"

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    @property
    def run(self) -> Path:
        return self.runs / "small"

    @property
    def leftovers(self) -> list[str]:
        """Files that a command must not leave behind."""
        found = [*self.folder.rglob("*.partial*"), *self.folder.rglob("*.lock")]
        return [str(path) for path in found]

    def make(self) -> Workspace:
        """Write images and a config."""
        write_images(self.folder / "images", 12)
        self.write_config({})
        return self

    def write_config(self, settings: dict[str, Any]) -> None:
        data = {"source": "folder", "root": str(self.folder / "images"), "image_size": 8, "crop": 1}
        values = merge({**CONFIG, "data": {**data, "cache_dir": str(self.cache)}}, settings)
        self.config.write_text(yaml.safe_dump(values), encoding="utf-8")

    def train(self, *words: str) -> Outcome:
        """Run `main.py` on the config, in this process."""
        given = ("--config", str(self.config), "--output-dir", str(self.runs), "--quiet", "--device", "cpu")
        return call_command(main.run, "main.py", *given, *words)

    def train_everything(self) -> Workspace:
        """Leave a finished and evaluated run, a finished study, and a teacher that stopped at its end."""
        for words in (("--phase", "all"), STUDY):
            done = self.train(*words)
            assert done.code == 0, done.err
        with mock.patch.object(JobFolder, "finish", side_effect=KeyboardInterrupt):
            assert self.train(*LONG).code == 130
        assert evaluate(str(self.run)).code == 0
        return self

    def open_experiment(self, *settings: str) -> Experiment:
        config = load_config(self.config, settings)
        machine = Machine(torch.device("cpu"), bfloat16=False, quiet=True)
        data = prepare(load_source(config.data), config.data, machine.device, config.shortcut)
        return Experiment(config, data, machine, RunFolder(self.runs / config.name))


def write_images(root: Path, per_class: int) -> None:
    """Write 8 x 8 images of noise in one colour a class, and a third as many to test on."""
    rng = np.random.default_rng(0)
    for part, count in (("train", per_class), ("test", per_class // 3)):
        for number, name in enumerate(CLASSES):
            folder = root / part / name
            folder.mkdir(parents=True)
            for image in range(count):
                pixels = rng.normal(60 + 60 * number, 30, (8, 8, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{image}.png")


def evaluate(*words: str) -> Outcome:
    """Run `main_eval.py` in this process, with little time for latencies and an empty picture for each figure."""
    with (
        mock.patch("diagnostics.evaluation.recording.COST_SECONDS", 0.001),
        mock.patch("diagnostics.report.files.to_bytes", lambda figure, kind: bytes(24)),
    ):
        return call_command(main_eval.run, "main_eval.py", *words, "--quiet")


def call_command(command: Callable[[], None], *words: str) -> Outcome:
    """Run a command with its words in this process; an error that the command does not handle is raised."""
    out = io.StringIO()
    with mock.patch.object(sys, "argv", list(words)), contextlib.redirect_stdout(out), capture_warnings() as err:
        code = run_command(command)
    return Outcome(code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def capture_warnings() -> Iterator[io.StringIO]:
    """Yield what is printed to stderr; a warning is printed again even if it was before."""
    warn.cache_clear()
    printed = io.StringIO()
    with contextlib.redirect_stderr(printed):
        yield printed


def damage_file(path: Path, kind: str, draw: random.Random) -> None:
    """Flip one bit of a file, cut it short, or remove it."""
    content = bytearray(path.read_bytes())
    if kind == "gone":
        path.unlink()
        return
    if kind == "flip":
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content[: {"flip": len(content), "cut": draw.randrange(len(content))}[kind]])


def take_snapshot(folder: Path) -> Snapshot:
    """Read all files of a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def restore_snapshot(folder: Path, snapshot: Snapshot) -> None:
    """Put changed files back, times included, since decoded images are identified by those."""
    for path in sorted(folder.rglob("*"), reverse=True):  # what a folder holds comes before it
        if path.is_symlink() or not path.is_dir():
            if path not in snapshot:
                path.unlink()
        elif not any(path.iterdir()):
            path.rmdir()
    for path, (content, time) in snapshot.items():
        if not path.is_file() or path.stat().st_mtime_ns != time or path.stat().st_size != len(content):
            path.unlink(missing_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            os.utime(path, ns=(time, time))
