"""A place to break things in, made by plain code so that scripts have it too: 48 small images and their config."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import yaml
from PIL import Image
from torch import nn

import main
import main_eval
from dataset.prepare import prepare
from dataset.sources import load_source
from errors import exit_code, warn
from models.machine import Machine
from models.taps import TappedModel
from settings.reading import load_config
from training.experiment import Experiment
from training.run.run_folder import RunFolder
from training.teacher_outputs import list_cached_places, open_outputs

CLASSES = ("ash", "birch", "cedar")
CONFIG = {
    "name": "small",
    "precision": "float32",
    "teacher": {"arch": "resnet8", "epochs": 1, "batch_size": 12, "cached_views": 2},
    "losses": {"crd": {"num_negatives": 8, "dim": 4}},
    "training": {"epochs": 2, "batch_size": 12},
    "methods": {"two_stage": {"stage2": {"epochs": 1}}, "scratch": {"epochs": 1}},
}


@dataclass(frozen=True)
class Said:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Place:
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

    def make(self) -> Place:
        """Write images and config."""
        rng = np.random.default_rng(0)
        for part, count in (("train", 12), ("test", 4)):
            for number, name in enumerate(CLASSES):
                folder = self.folder / "images" / part / name
                folder.mkdir(parents=True)
                for image in range(count):
                    pixels = rng.normal(60 + 60 * number, 30, (8, 8, 3)).clip(0, 255).astype(np.uint8)
                    Image.fromarray(pixels).save(folder / f"{image}.png")
        data = {"source": "folder", "root": str(self.folder / "images"), "image_size": 8, "crop": 1}
        values = {**CONFIG, "data": {**data, "cache_dir": str(self.cache)}}
        self.config.write_text(yaml.safe_dump(values), encoding="utf-8")
        return self

    def experiment(self, *settings: str) -> Experiment:
        config = load_config(self.config, settings)
        machine = Machine(torch.device("cpu"), bfloat16=False, quiet=True)
        data = prepare(load_source(config.data), config.data, machine.device, config.shortcut)
        return Experiment(config, data, machine, RunFolder(self.runs / config.name))

    def train(self, *words: str) -> Said:
        """`main.py` on the config, in this process."""
        given = ("--config", str(self.config), "--output-dir", str(self.runs), "--quiet", "--device", "cpu")
        return call(main.run, "main.py", *given, *words)


def cache_outputs(experiment: Experiment, model: nn.Module) -> None:
    """Cache a teacher's outputs as trainings of the experiment do."""
    teacher = TappedModel(model.requires_grad_(False), list_cached_places(experiment))
    open_outputs(experiment, teacher, experiment.config.teacher.cached_views)


def evaluate(*words: str) -> Said:
    """`main_eval.py` in this process, with next to no time for latencies and an empty picture for each figure."""
    with (
        mock.patch("diagnostics.evaluation.recording.COST_SECONDS", 0.001),
        mock.patch("diagnostics.report.files.to_bytes", lambda figure, kind: bytes(24)),
    ):
        return call(main_eval.run, "main_eval.py", *words, "--quiet")


def call(command: Callable[[], None], *words: str) -> Said:
    """A command with its words in this process; an error that is none of its own gets through."""
    out, err = io.StringIO(), io.StringIO()
    warn.cache_clear()
    with (
        mock.patch.object(sys, "argv", list(words)),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = exit_code(command)
    return Said(code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def silent() -> Iterator[io.StringIO]:
    """Warnings go to what this gives, each as if for the first time."""
    warn.cache_clear()
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        yield said
