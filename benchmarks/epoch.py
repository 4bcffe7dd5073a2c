"""A stage 1 epoch on CIFAR-100, resnet18 to resnet20, against plain training and against the published loop.

    python -m benchmarks.epoch

The CIFAR-100 config's own settings on random images: two taps, bank of 50,000, teacher looked up in a cache.
Stage 1 and plain cross-entropy training of the same student take turns, 8 steps each; the published loop (one
image at a time, float32, live teacher, gathered vectors, its batch of 64) is timed on a few steps, and so is plain
training as one writes it with torchvision alone (Pillow, its transforms and a 2-worker DataLoader, the student and
precision of this project's). All are scaled to an epoch by their numbers of steps, without measuring after it and,
once a run, filling banks and cache.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import reference
from benchmarks.setting import (
    CLASSES,
    SIDE,
    TEST,
    TRAIN,
    cached_views,
    cifar_config,
    plain,
    random_experiment,
    random_images,
    steps_of,
)
from benchmarks.timing import (
    CPU,
    Claim,
    Timing,
    arithmetic,
    command_line,
    in_own_process,
    matrix_rate,
    measure,
    measure_in_turn,
    peak_mb,
)
from configs.stages import CRD
from dataset.loader import steps_per_epoch, training_batches
from training.alignment import build_losses
from training.crd import Alignment, HeldOut
from training.experiment import Experiment
from training.progress import Training
from training.stepping import make_stepper
from training.teacher_outputs import CachedTeacher

STEPS, TURNS, PUBLISHED_BATCH, PUBLISHED_STEPS = 8, 4, 64, 3
AS_FAST = "x as fast as the torchvision loop"
STATISTICS = 8  # batches that regression whitens by, once a run
TORCHVISION_STEPS = 16  # more than the batches that are made ahead
CASES = ("published", "torchvision", "in_turn", "whole")
FORMS: dict[str, dict[str, str]] = {  # beside the config's own, from a bank
    "in the batch": {"objective": "infonce", "negatives": "batch", "mode": "instance"},
    "by regression": {"objective": "regression"},
}


def random_cache(
    folder: Path, widths: list[int], num_images: int, views: int, device: torch.device
) -> CachedTeacher:
    """A teacher's cache of random outputs."""
    rng = np.random.default_rng(0)
    for view in range(views):
        rows = rng.standard_normal((num_images, sum(widths)), dtype=np.float32).astype(np.float16)
        np.save(folder / f"view{view}.npy", rows)
    return CachedTeacher(folder, widths, views, device)


def stage1(experiment: Experiment, folder: Path, views: int) -> Alignment:
    """Stage 1's objective as `train_stage1` builds it, with a random teacher's random cache."""
    config, data, machine = experiment.config, experiment.data, experiment.machine
    teacher = experiment.tapped(machine.place(experiment.build(config.teacher)).eval(), config.teacher)
    widths = [CLASSES, *teacher.tap_dims(SIDE)]
    held_out = HeldOut(data.test, teacher.requires_grad_(False), machine, 0)
    student = experiment.new_student(0)
    tapped = experiment.tapped(student, config.student)
    crd = build_losses(experiment, tapped, teacher)
    cache = random_cache(folder, widths, len(data.train), views, machine.device)
    return Alignment(student, tapped, crd, cache, held_out)


def crd_arithmetic(settings: CRD, batch_size: int) -> int:
    """Operations of a step's similarities: two taps, two directions, forward and backward."""
    return 2 * 2 * 2 * 2 * batch_size * settings.num_negatives * settings.dim


def in_turn(folder: Path, device: torch.device = CPU, capture: bool = False) -> list[Timing]:
    """An epoch of plain training, of stage 1 and of its other forms, and what the banks need at its beginning."""
    config = cifar_config(folder)
    experiment = random_experiment(config, folder, TRAIN, 1000, device, capture)
    batch_size, settings = config.crd.batch_size, config.crd.optimizer
    alone, aligned = plain(experiment), stage1(experiment, folder, 1)
    batch = next(training_batches(experiment.data, batch_size, 0, 0, 0))
    rate = matrix_rate(experiment.machine.dtype, device=device)
    floor = STEPS * arithmetic(lambda: alone(batch)["ce"].value.backward()) / rate
    floors = [floor, floor + STEPS * crd_arithmetic(config.crd, batch_size) / rate, *[floor for _ in FORMS]]
    calls: dict[str, Callable[[], object]] = {
        "plain": steps_of(alone, experiment, batch_size, settings, STEPS),
        "stage 1": steps_of(aligned, experiment, batch_size, settings, STEPS),
    }
    for form, changes in FORMS.items():
        crd = CRD.model_validate({**config.crd.model_dump(), **changes})
        other = replace(experiment, config=config.model_copy(update={"crd": crd}))
        place = folder / form
        place.mkdir()
        objective = stage1(other, place, 1)
        objective.begin(islice(training_batches(other.data, batch_size, 0, 0, 0), STATISTICS))
        calls[form] = steps_of(objective, other, batch_size, settings, STEPS)
    timings = measure_in_turn(calls, TURNS, floors)
    once = measure("beginning", aligned.begin_epoch, 3)
    scale = steps_per_epoch(TRAIN, batch_size) / STEPS
    added = [0.0, once.seconds, *[0.0 for _ in FORMS]]
    return [*(_scaled(timing, scale, more) for timing, more in zip(timings, added, strict=True)), once]


def _scaled(timing: Timing, factor: float, added: float) -> Timing:
    floor = None if timing.floor is None else timing.floor * factor
    seconds, fastest = (value * factor + added for value in (timing.seconds, timing.fastest))
    return replace(timing, seconds=seconds, fastest=fastest, floor=floor)


def whole(folder: Path) -> list[Timing]:
    """Peak memory of all that a stage 1 process does: filling banks, some steps, measuring, a checkpoint."""
    config = cifar_config(folder)
    experiment = random_experiment(config, folder, TRAIN, TEST)
    objective = stage1(experiment, folder, cached_views(config))
    batch_size, settings = config.crd.batch_size, config.crd.optimizer
    start = time.perf_counter()
    objective.begin(training_batches(experiment.data, batch_size, 0, 0, 0))
    assert isinstance(objective.teacher, CachedTeacher)
    for view in objective.teacher.views:
        view.max()  # every page of the cache is read in the course of a run
    objective.begin_epoch()
    steps_of(objective, experiment, batch_size, settings, STEPS)()
    objective.measure()
    groups, job, machine = objective.parameter_groups(settings.lr), experiment.stage1(0), experiment.machine
    job.path.mkdir(parents=True)
    job.save(Training(objective, make_stepper(objective, groups, settings, 1, 1, machine), machine.device))
    seconds = time.perf_counter() - start
    return [Timing("beginning and end of a run", seconds, seconds, 1, peak_mb())]


def random_bank(dim: int, device: torch.device) -> Tensor:
    """Unit vectors (N, D)."""
    return F.normalize(torch.randn(TRAIN, dim, device=device), dim=1)


class PublishedLoop:
    """A step of stage 1 as published: float32, teacher run live, one gathered CRD a tap."""

    def __init__(self, experiment: Experiment) -> None:
        config = experiment.config
        self.settings, self.device = config.crd, experiment.machine.device
        networks = (config.student, config.teacher)
        self.student, self.teacher = (
            experiment.tapped(experiment.build(network), network).to(self.device) for network in networks
        )
        self.teacher.eval()
        dim = self.settings.dim
        self.projections = [
            [nn.Linear(width, dim, device=self.device) for width in model.tap_dims(SIDE)]
            for model in (self.student, self.teacher)
        ]
        self.banks = [(random_bank(dim, self.device), random_bank(dim, self.device)) for _ in range(2)]
        data = reference.PillowImages.of(random_images(TRAIN), self.settings.num_negatives)
        self.batches = iter(reference.loader(data, PUBLISHED_BATCH, self.device))
        parameters = list(self.student.parameters())
        parameters += [weight for side in self.projections for one in side for weight in one.parameters()]
        self.optimizer = torch.optim.SGD(parameters, lr=0.03, momentum=0.9)

    def step(self) -> None:
        images, _, indices, drawn = (part.to(self.device, non_blocking=True) for part in next(self.batches))
        with torch.no_grad():
            teacher = self.teacher(images).taps
        student = self.student.train()(images).taps
        loss: Tensor = torch.zeros(())
        for tap, banks in enumerate(self.banks):
            own, other = (
                F.normalize(self.projections[side][tap](taps[tap]), dim=1)
                for side, taps in enumerate((student, teacher))
            )
            loss = loss + reference.step(own, other, banks, indices, drawn, float(TRAIN))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def published(folder: Path, device: torch.device = CPU) -> list[Timing]:
    loop = PublishedLoop(random_experiment(cifar_config(folder), folder, PUBLISHED_BATCH, 0, device))
    timing = measure("published loop", loop.step, PUBLISHED_STEPS)
    return [_scaled(timing, steps_per_epoch(TRAIN, PUBLISHED_BATCH), 0.0)]


def torchvision(folder: Path, device: torch.device = CPU) -> list[Timing]:
    """An epoch of plain training of the student by torchvision's transforms, a DataLoader and a loop by hand."""
    experiment = random_experiment(cifar_config(folder), folder, PUBLISHED_BATCH, 0, device)
    student, batch_size = experiment.new_student(0), experiment.config.crd.batch_size
    images = reference.PillowImages.of(random_images(TRAIN))
    batches = iter(reference.loader(images, batch_size, device))
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)

    def step() -> None:
        images, labels, *_ = (part.to(device, non_blocking=True) for part in next(batches))
        with experiment.machine.autocast():
            loss = F.cross_entropy(student(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    timing = measure("torchvision loop", step, TORCHVISION_STEPS)
    return [_scaled(timing, steps_per_epoch(TRAIN, batch_size), 0.0)]


def run(case: str) -> list[Timing]:
    torch.manual_seed(0)
    cases = {"published": published, "torchvision": torchvision, "in_turn": in_turn, "whole": whole}
    with tempfile.TemporaryDirectory() as folder:
        return cases[case](Path(folder))


def claims() -> list[Claim]:
    [base], [peer], (alone, aligned, *forms, once), [process] = (in_own_process("epoch", case) for case in CASES)
    slower, faster = aligned.seconds / alone.seconds, base.seconds / aligned.seconds
    others = [
        Claim(
            f"stage 1 epoch, {form}",
            timing.seconds / alone.seconds,
            "x the time of plain training",
            1.15,
            at_most=True,
            timing=timing,
        )
        for form, timing in zip(FORMS, forms, strict=True)
    ]
    return [
        Claim("stage 1 epoch: published loop", timing=base),
        Claim("plain training of the student: torchvision, 2 workers", timing=peer),
        Claim("stage 1 epoch: plain training of the student", peer.seconds / alone.seconds, AS_FAST, timing=alone),
        Claim("stage 1 epoch: reordering the banks (in the next)", timing=once),
        Claim("stage 1 epoch", slower, "x the time of plain training", 1.5, at_most=True, timing=aligned),
        *others,
        Claim("stage 1 epoch", faster, "x as fast as the published loop", 40),
        Claim("stage 1 process, peak memory", process.peak_mb / 1000, "GB", 3, at_most=True),
    ]


if __name__ == "__main__":
    command_line(__doc__, CASES, run, claims)
