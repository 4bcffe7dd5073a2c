"""Stage 2 on frozen features, all its epochs together, against an epoch of plain training of the same student.

    python -m benchmarks.stage2

`train_stage2` of the CIFAR-100 config with `kd.train: head` on a tenth as many images as CIFAR-100 has, with the
teacher's outputs cached; a plain epoch on the same images by the same loop. Times are for those images.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from unittest import mock

import torch
import torch.utils.tensorboard

from benchmarks.setting import (
    CLASSES,
    SIDE,
    TEST,
    TRAIN,
    cached_views,
    cifar_config,
    plain,
    random_experiment,
    steps_of,
)
from benchmarks.timing import (
    Claim,
    Timing,
    arithmetic,
    command_line,
    in_own_process,
    matrix_rate,
    measure,
    peak_mb,
)
from dataset.loader import steps_per_epoch
from models.machine import Machine
from models.taps import Outputs, TappedModel
from training.experiment import Experiment
from training.kd import train_stage2
from training.teacher_outputs import teacher_outputs

PART, SHARE, REPEATS = 10, 6, 3  # of CIFAR-100's images, of an epoch that is timed at once, and how often
CASES = ("both",)


def trained_before(experiment: Experiment) -> None:
    """A random teacher and a random student of stage 1 as finished jobs, and a cache of random teacher outputs."""
    config, folder = experiment.config, experiment.folder
    teacher = experiment.machine.place(experiment.build(config.teacher))
    folder.teacher.finish(teacher, {})
    experiment.stage1(0).finish(experiment.new_student(0), {})
    tapped = experiment.tapped(teacher, config.teacher)
    dims = tapped.tap_dims(SIDE)

    def random_outputs(_: TappedModel, images: torch.Tensor, __: Machine) -> Outputs:
        logits, *taps = torch.randn(len(images), CLASSES + sum(dims)).split([CLASSES, *dims], dim=1)
        return Outputs(logits, tuple(taps))

    with mock.patch("training.teacher_outputs.run", random_outputs):
        teacher_outputs(experiment, tapped)


def both(folder: Path, train: int, test: int) -> list[Timing]:
    """A plain epoch, and all of stage 2."""
    config = cifar_config(folder, "kd.train=head")
    config = cifar_config(folder, "kd.train=head", f"teacher.views={cached_views(config)}")
    experiment = random_experiment(config, folder / "run", train, test)
    trained_before(experiment)
    batch_size = config.kd.batch_size
    alone, steps = plain(experiment), steps_per_epoch(train, batch_size)
    timed = max(1, steps // SHARE)
    rate = matrix_rate(torch.bfloat16 if experiment.machine.bfloat16 else torch.float32)
    image = experiment.data.train.normalised(torch.arange(1))
    forward = arithmetic(lambda: alone.model.eval()(image))
    epoch = steps_of(alone, experiment, batch_size, config.crd.optimizer, timed)
    plain_timing = measure("a plain epoch", epoch, REPEATS, 3 * forward * batch_size * timed / rate)
    before, start = peak_mb(), time.perf_counter()
    train_stage2(experiment, 0)
    seconds = time.perf_counter() - start
    views = min(config.teacher.views, config.kd.epochs)
    floor = forward * (views * train + test) / rate
    stage2 = Timing(f"{config.kd.epochs} epochs", seconds, seconds, 1, peak_mb() - before, floor)
    return [_times(plain_timing, steps / timed), stage2]


def _times(timing: Timing, factor: float) -> Timing:
    floor = None if timing.floor is None else timing.floor * factor
    return Timing(
        timing.name, timing.seconds * factor, timing.fastest * factor, timing.repeats, timing.peak_mb, floor
    )


def run(case: str) -> list[Timing]:
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        return both(Path(folder), TRAIN // PART, TEST // PART)


def claims() -> list[Claim]:
    alone, timing = in_own_process("stage2", "both")
    images = f"{TRAIN // PART:,} images"
    epochs = timing.seconds / alone.seconds
    return [
        Claim(f"stage 2: a plain epoch, {images}", timing=alone),
        Claim(f"stage 2 head: {timing.name}, {images}", epochs, "plain epochs", 2, at_most=True, timing=timing),
    ]


if __name__ == "__main__":
    command_line(__doc__, CASES, run, claims)
