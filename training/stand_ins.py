"""What a job takes from those before it, where there are none yet: things of the same sizes to try steps on.

Networks are untrained ones of the same architecture, and what would be looked up for every image is that of one:
neither changes how long a step takes. Nothing is read of a run or a cache, and nothing is written.

Letters: N training images, B batch, D features.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from configs.networks import Network
from configs.section import Weighted
from dataset.images import Batch
from dataset.loader import view_cutter
from dataset.prepare import TrainingData
from dataset.transfer import to_device
from models.machine import Machine
from models.taps import Outputs, TappedModel
from training import distributed
from training.baselines import prepare_baseline
from training.crd import prepare_stage1
from training.engine import EVALUATION_BATCH, seed_everything
from training.experiment import Experiment
from training.job_folder import JobFolder
from training.job_name import JobName
from training.kd import prepare_stage2
from training.prepared import Prepared
from training.teacher import prepare_teacher
from training.teacher_outputs import LiveTeacher, TeacherOutputs, run

FEW = 4  # images that are tried first


def measured(call: Callable[[], object], machine: Machine) -> float:
    """Seconds that a call takes, with what it asks the device to do; those of the first process, in every one."""
    begun = now(machine)
    call()
    return distributed.from_first(now(machine) - begun)


def now(machine: Machine) -> float:
    """The time in seconds, once the device has done what it was asked to."""
    if machine.device.type == "cuda":
        torch.cuda.synchronize(machine.device)
    return time.perf_counter()


def seconds_an_image(compute: Callable[[Tensor], object], most: int, machine: Machine, limit: float) -> float:
    """Of `compute`, which takes positions of images, up to `most` at once, with about `limit` seconds to find out.

    Each number of images is tried twice, since a processor prepares for it the first time.
    """
    count = min(FEW, most)
    while True:
        call = partial(compute, torch.arange(count))
        call()
        seconds = measured(call, machine)
        if count == most or 8 * seconds > limit:
            return seconds / count
        count = min(most, 4 * count)


@dataclass
class StandIns:
    """Takes the place of `training.given.Finished`; notes what the passes over all images would cost.

    limit: seconds for finding out how long one pass takes.
    """

    machine: Machine
    limit: float
    a_view: float = 0.0  # seconds that passes take for each view that is shown
    once: float = 0.0  # the same of passes that are made once
    kept: int = 0  # bytes of what passes keep in memory

    def teacher(self, experiment: Experiment) -> nn.Module:
        network = experiment.config.teacher
        return self.trained(experiment, network, experiment.folder.teacher).requires_grad_(False)

    def trained(self, experiment: Experiment, network: Network, job: JobFolder) -> nn.Module:
        return experiment.machine.place(experiment.build(network, pretrained=False)).eval()

    def outputs(self, experiment: Experiment, teacher: TappedModel, sees_images: bool = True) -> TeacherOutputs:
        views, data = experiment.config.teacher.views, experiment.data
        if views == 0 and sees_images:
            return LiveTeacher(teacher, self.machine)
        widths = [data.num_classes, *teacher.tap_dims(experiment.config.data.image_size)]
        rows = OfOneImage(rows_of(teacher, data, self.machine), len(data.train), 0 if views else 1, self)

        def lookup(batch: Batch) -> Outputs:
            logits, *taps = rows(batch).float().split(widths, dim=1)
            return Outputs(logits, tuple(taps))

        return lookup

    def weights(self, experiment: Experiment, settings: Weighted, seed: int) -> Tensor | None:
        if settings.errors_of is None:
            return None
        images = experiment.data.train
        model = self.trained(experiment, experiment.config.student, experiment.folder.teacher)

        @torch.no_grad()
        def answer(indices: Tensor) -> Tensor:
            with self.machine.autocast():
                logits: Tensor = model(images.normalised(indices.to(images.device)))
            return logits

        self.once += self.pass_of(answer, len(images))
        return torch.ones(len(images), device=images.device)

    def features(
        self, extract: Callable[[Tensor], Tensor], data: TrainingData, keep: int, for_teacher: bool = False
    ) -> Callable[[Batch], Tensor]:
        cut = view_cutter(data, 0, for_teacher)
        return OfOneImage(lambda indices: extract(cut(indices)), len(data.train), keep, self)

    def pass_of(self, compute: Callable[[Tensor], object], count: int) -> float:
        """Seconds of a pass over `count` images, which the processes share."""
        each = seconds_an_image(compute, min(EVALUATION_BATCH, count), self.machine, self.limit)
        return each * count / distributed.world_size()


class OfOneImage:
    """Looks up (N, D) that a pass over the images would give, where every row is that of the first image.

    Args:
        compute: (B, D) for the images at some positions (B,).
        count: N.
        keep: how many views of (N, D) are in memory; 0 for what lies on disk, whose pass is no part of the job.
        note: where the cost of a pass is noted.
    """

    def __init__(self, compute: Callable[[Tensor], Tensor], count: int, keep: int, note: StandIns) -> None:
        self.compute, self.count, self.keep, self.note = compute, count, keep, note
        self.row: Tensor | None = None  # (1, D) on the CPU

    def __call__(self, batch: Batch) -> Tensor:  # (B, D)
        if self.row is None:
            self.row = self.compute(torch.arange(1)).cpu()
            if self.keep:
                self.note.a_view += self.note.pass_of(self.compute, self.count)
                self.note.kept += self.keep * self.count * self.row.nbytes
        return to_device(self.row.expand(self.count, -1)[batch.rows], batch.indices.device)


def rows_of(teacher: TappedModel, data: TrainingData, machine: Machine) -> Callable[[Tensor], Tensor]:
    """Gives logits and taps (B, D) of a teacher for a view of the training images at some positions (B,)."""
    cut = view_cutter(data, 0, for_teacher=True)

    def compute(indices: Tensor) -> Tensor:
        out = run(teacher.eval(), cut(indices), machine)
        return torch.cat([out.logits, *out.taps], dim=1)

    return compute


def prepare_job(name: JobName, experiment: Experiment, given: StandIns) -> Prepared:
    """What a job minimises, from stand-ins."""
    seed, config = name.seed or 0, experiment.config
    match name.kind:
        case "teacher":
            seed_everything(config.teacher.seed)
            model = experiment.machine.place(experiment.build(config.teacher, pretrained=False))
            return prepare_teacher(experiment, model)
        case "stage1":
            return prepare_stage1(experiment.of_variant(name.of), seed, given)
        case "stage2":
            return prepare_stage2(experiment.of_variant(name.of), seed, given)
    return prepare_baseline(experiment, name.of, seed, given)
