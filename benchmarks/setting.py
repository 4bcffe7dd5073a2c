"""This project's CIFAR-100 config on random images: nothing is downloaded or trained first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import chain, count, islice
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.timing import CPU, ROOT
from dataset.files.decoded_cache import Images
from dataset.loader import iter_training_batches
from dataset.sources import Source
from models.machine import Machine, open_machine
from models.taps import Outputs, TappedModel
from settings.reading import load_config
from settings.schema import Config
from training.engine import train_one_epoch
from training.experiment import Experiment, open_experiment
from training.job_name import TEACHER, JobName, find_start
from training.progress import EpochProgress
from training.run.run_folder import RunFolder
from training.setup import TrainingSetup, make_setup
from training.stepping import make_stepper
from training.teacher_outputs import list_cached_places

TRAIN, CLASSES, SIDE = 50_000, 100, 32


def load_cifar_config(folder: Path, *overrides: str) -> Config:
    """Load the CIFAR-100 config with resnet18 and resnet20 as teacher and student, its caches in `folder`."""
    networks = ("teacher.arch=resnet18", "student.arch=resnet20", f"data.cache_dir={folder}")
    return load_config(ROOT / "configs/cifar100/common.yaml", [*networks, *overrides])


def draw_images(count: int) -> Images:
    """Draw `count` images of CIFAR-100's size, labels in turn."""
    shape = (count, 3, SIDE, SIDE)
    return Images(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), np.arange(count) % CLASSES)


def open_random_experiment(
    config: Config, folder: Path, train: int, device: torch.device = CPU, capture: bool = False
) -> Experiment:
    """Open an experiment on random images, its run in `folder`; a GPU may capture its passes."""
    parts = (draw_images(train), draw_images(0), draw_images(CLASSES))
    source = Source(*parts, [str(number) for number in range(CLASSES)])
    machine = replace(open_machine(config.precision, device, quiet=True), capture=capture)
    return open_experiment(config, RunFolder(folder), machine, source)


def prepare_random(experiment: Experiment, job: JobName) -> TrainingSetup:
    """Prepare a job behind networks with random weights, the teacher's cache filled with random outputs."""
    for name in (TEACHER, *find_start(experiment.config, job)):
        if not experiment.folder.get_job(name).is_finished:
            experiment.folder.get_job(name).finish(experiment.build(experiment.find_network(name)), {})
    layout = experiment.find_layout(experiment.config.teacher)
    widths = [CLASSES, *(layout.find_shape(place)[0] for place in list_cached_places(experiment))]

    def draw_outputs(_: TappedModel, images: torch.Tensor, __: Machine) -> Outputs:
        logits, *taps = torch.randn(len(images), sum(widths)).split(widths, dim=1)
        return Outputs(logits, tuple(taps))

    with mock.patch("training.teacher_outputs.predict_taps", draw_outputs):
        return make_setup(experiment, job)


def make_steps(prepared: TrainingSetup, machine: Machine, steps: int) -> Callable[[], None]:
    """Return a call that trains for `steps` further steps by the project's own loop, images and all."""
    objective, plan, settings = prepared.objective, prepared.plan, prepared.plan.optimizer
    prepared.compile_or_capture(machine)
    groups = objective.make_parameter_groups(settings.lr)
    stepper = make_stepper(objective, groups, settings, 1000, 1000, machine)
    batches = chain.from_iterable(
        iter_training_batches(prepared.data, plan.batch_size, plan.seed, epoch, plan.select_view(0))
        for epoch in count()
    )

    def train_steps() -> None:
        objective.train()
        some, bar = islice(batches, steps), tqdm(disable=True)
        train_one_epoch(objective, some, stepper, machine, bar, EpochProgress(rate=settings.lr))

    return train_steps
