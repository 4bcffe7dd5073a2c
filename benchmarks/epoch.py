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
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import reference
from benchmarks.setting import (
    PLAIN,
    SIDE,
    STAGE1,
    TEST,
    TRAIN,
    cached_views,
    cifar_config,
    prepare_random,
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
from dataset.images import Batch
from dataset.loader import steps_per_epoch, training_batches
from losses.crd import CRD
from models.taps import TappedModel
from settings.loss_options import make_loss
from settings.networks import Network
from settings.schema import Config
from training.experiment import Experiment
from training.job_name import JobName, stage_of
from training.prepared import Prepared
from training.progress import Training
from training.run.checkpointer import JobCheckpointer
from training.stage import StageObjective
from training.stepping import make_stepper
from training.teacher_outputs import CachedTeacher

STEPS, TURNS, PUBLISHED_BATCH, PUBLISHED_STEPS = 8, 4, 64, 3
AS_FAST = "x as fast as the torchvision loop"
STATISTICS = 8  # batches that regression whitens by, once a run
TORCHVISION_STEPS = 16  # more than the batches that are made ahead
CASES = ("published", "torchvision", "in_turn", "whole")
FORMS = {  # beside the config's own, from a bank: what differs in stage 1
    "in the batch": "{crd: {objective: infonce, negatives: batch, mode: instance}}",
    "by regression": "{crd: false, regression: 1}",
}


def read_crd(config: Config) -> CRD:
    """Return CRD with the options of stage 1."""
    crd = make_loss("losses.crd", "crd", stage_of(config, STAGE1).losses["crd"].options, config.losses)
    assert isinstance(crd, CRD)
    return crd


def crd_arithmetic(crd: CRD, batch_size: int) -> int:
    """Count the operations of a step's similarities: every tap, two directions, forward and backward."""
    return len(crd.used_taps) * 2 * 2 * 2 * batch_size * crd.num_negatives * crd.dim


def first_batches(prepared: Prepared, number: int | None = None) -> Iterator[Batch]:
    """Yield so many batches of the first epoch, all without a number."""
    return islice(training_batches(prepared.data, prepared.plan.batch_size, 0, 0, 0), number)


def in_turn(folder: Path, device: torch.device = CPU, capture: bool = False) -> list[Timing]:
    """Time an epoch of plain training, of stage 1 and of its other forms, and what begins stage 1's."""
    forms = [
        f"methods.form{n}={{base: two_stage, stage1: {{losses: {one}}}}}" for n, one in enumerate(FORMS.values())
    ]
    config = cifar_config(folder, "teacher.cached_views=1", *forms)
    experiment = random_experiment(config, folder, TRAIN, 1000, device, capture)
    machine, crd = experiment.machine, read_crd(config)
    alone, aligned = (prepare_random(experiment, job) for job in (PLAIN, STAGE1))
    others = [prepare_random(experiment, JobName(f"form{number}", 0, 1)) for number in range(len(FORMS))]
    (batch,) = first_batches(alone, 1)
    rate = matrix_rate(machine.dtype, device=device)
    floor = STEPS * arithmetic(lambda: alone.objective(batch)["ce"].value.backward()) / rate
    from_bank = floor + STEPS * crd_arithmetic(crd, aligned.plan.batch_size) / rate
    for prepared in others:
        prepared.objective.begin(first_batches(prepared, STATISTICS))
    all_of_them = dict(zip(("plain", "stage 1", *FORMS), (alone, aligned, *others), strict=True))
    calls: dict[str, Callable[[], object]] = {
        name: steps_of(prepared, machine, STEPS) for name, prepared in all_of_them.items()
    }
    timings = measure_in_turn(calls, TURNS, [floor, from_bank, *[floor for _ in FORMS]])
    once = measure("beginning", aligned.objective.begin_epoch, 3)
    scale = steps_per_epoch(TRAIN, alone.plan.batch_size) / STEPS
    added = [0.0, once.seconds, *[0.0 for _ in FORMS]]
    return [*(timing.scaled(scale, more) for timing, more in zip(timings, added, strict=True)), once]


def whole(folder: Path) -> list[Timing]:
    """Measure the memory of all that a stage 1 process does: filling banks, steps, measuring, a checkpoint."""
    config = cifar_config(folder)
    config = cifar_config(folder, f"teacher.cached_views={cached_views(config)}")
    experiment = random_experiment(config, folder, TRAIN, TEST)
    prepared, machine = prepare_random(experiment, STAGE1), experiment.machine
    objective, plan = prepared.objective, prepared.plan
    start = time.perf_counter()
    objective.begin(first_batches(prepared))
    assert isinstance(objective, StageObjective) and objective.teacher is not None
    outputs = objective.teacher.outputs
    assert isinstance(outputs, CachedTeacher)
    for view in outputs.views:
        view.max()  # every page of the cache is read in the course of a run
    objective.begin_epoch()
    steps_of(prepared, machine, STEPS)()
    objective.measure()
    groups, job = objective.parameter_groups(plan.optimizer.lr), experiment.folder.job(STAGE1)
    job.path.mkdir(parents=True)
    stepper = make_stepper(objective, groups, plan.optimizer, 1, 1, machine)
    JobCheckpointer(job).save(Training(objective, stepper, machine.device))
    seconds = time.perf_counter() - start
    return [Timing("beginning and end of a run", seconds, seconds, 1, peak_mb())]


def random_bank(dim: int, device: torch.device) -> Tensor:
    """Draw unit vectors (N, D)."""
    return F.normalize(torch.randn(TRAIN, dim, device=device), dim=1)


def _build_tapped(experiment: Experiment, network: Network, crd: CRD) -> TappedModel:
    layout = experiment.layout(network)
    places = [layout.place(tap) for tap in crd.used_taps]
    return TappedModel(experiment.build(network), places).to(experiment.machine.device)


class PublishedLoop:
    """A step of stage 1 as published: float32, teacher run live, one gathered CRD a tap."""

    def __init__(self, experiment: Experiment) -> None:
        config, self.device = experiment.config, experiment.machine.device
        crd = read_crd(config)
        self.student, self.teacher = (
            _build_tapped(experiment, net, crd) for net in (config.student, config.teacher)
        )
        self.teacher.eval()
        self.projections = [
            [nn.Linear(width, crd.dim, device=self.device) for (width,) in model.tap_shapes(SIDE)]
            for model in (self.student, self.teacher)
        ]
        self.banks = [
            (random_bank(crd.dim, self.device), random_bank(crd.dim, self.device)) for _ in crd.used_taps
        ]
        data = reference.PillowImages.of(random_images(TRAIN), crd.num_negatives)
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
    return [timing.scaled(steps_per_epoch(TRAIN, PUBLISHED_BATCH))]


def torchvision(folder: Path, device: torch.device = CPU) -> list[Timing]:
    """Time an epoch of plain training by torchvision's transforms, a DataLoader and a loop by hand."""
    experiment = random_experiment(cifar_config(folder), folder, PUBLISHED_BATCH, 0, device)
    student, batch_size = experiment.new_student(0), experiment.config.training.batch_size
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
    return [timing.scaled(steps_per_epoch(TRAIN, batch_size))]


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
