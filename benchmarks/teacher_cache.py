"""Caching a teacher's outputs by the project's own code, against the teacher's plain forward on ready images.

    python -m benchmarks.teacher_cache

resnet18 of the CIFAR-100 config, a view of 512 images a time, both in turn; times are for that view.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from itertools import count
from pathlib import Path

import torch

from benchmarks.setting import cifar_config, random_experiment
from benchmarks.timing import (
    Claim,
    Timing,
    arithmetic,
    command_line,
    in_own_process,
    matrix_rate,
    measure_in_turn,
)
from models.taps import TappedModel
from training.evaluation import EVALUATION_BATCH
from training.experiment import Experiment
from training.teacher_outputs import list_cached_places, open_outputs
from training.teacher_outputs import run as forward

IMAGES, REPEATS = 512, 3
CASES = ("both",)


def caching(experiment: Experiment, teacher: TappedModel) -> Callable[[], object]:
    """Return a call that caches one more view: a cache of one view more than there was lacks that one."""
    numbers = count(1)

    def call() -> object:
        with redirect_stdout(StringIO()):  # what it says of the size on disk
            return open_outputs(experiment, teacher, views=next(numbers))

    return call


def make_teacher(experiment: Experiment) -> TappedModel:
    """Return the config's teacher with random weights, frozen, with the taps that its cache holds."""
    network = experiment.machine.place(experiment.build(experiment.config.teacher)).eval().requires_grad_(False)
    return TappedModel(network, list_cached_places(experiment))


def both(folder: Path) -> list[Timing]:
    experiment = random_experiment(cifar_config(folder), folder, IMAGES, 0)
    machine, teacher = experiment.machine, make_teacher(experiment)
    ready = experiment.data.train.normalised(torch.arange(IMAGES)).split(EVALUATION_BATCH)

    def plain() -> None:
        for images in ready:
            forward(teacher, images, machine)

    one = arithmetic(lambda: forward(teacher, ready[0][:1], machine))
    floor = IMAGES * one / matrix_rate(torch.bfloat16 if machine.bfloat16 else torch.float32)
    calls = {"plain forward": plain, "caching": caching(experiment, teacher)}
    return measure_in_turn(calls, REPEATS, [floor, floor])


def run(case: str) -> list[Timing]:
    with tempfile.TemporaryDirectory() as folder:
        return both(Path(folder))


def claims() -> list[Claim]:
    plain, timing = in_own_process("teacher_cache", "both")
    rate = plain.seconds / timing.seconds
    return [
        Claim(f"teacher forward, resnet18, {IMAGES:,} images", timing=plain),
        Claim(f"teacher caching, {IMAGES:,} images", rate, "of the plain forward's rate", 0.9, timing=timing),
    ]


if __name__ == "__main__":
    command_line(__doc__, CASES, run, claims)
