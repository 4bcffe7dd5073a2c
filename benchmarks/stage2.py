"""Stage 2 on frozen features, all its epochs together, against an epoch of plain training of the same student.

    python -m benchmarks.stage2

Stage 2 of the CIFAR-100 config with `train: head` on a tenth as many images as CIFAR-100 has, with the teacher's
outputs cached; a plain epoch on the same images by the same loop. Times are for those images.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch
import torch.utils.tensorboard

from benchmarks.setting import (
    PLAIN,
    STAGE2,
    TEST,
    TRAIN,
    cached_views,
    cifar_config,
    prepare_random,
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
from training.job_name import stage_of
from training.prepared import prepare, train

PART, SHARE, REPEATS = 10, 6, 3  # of CIFAR-100's images, of an epoch that is timed at once, and how often
CASES = ("both",)


def both(folder: Path, train_images: int, test_images: int) -> list[Timing]:
    """Time a plain epoch, and all of stage 2."""
    views = cached_views(cifar_config(folder))
    config = cifar_config(folder, "methods.two_stage.stage2.train=head", f"teacher.cached_views={views}")
    experiment = random_experiment(config, folder / "run", train_images, test_images)
    machine, stage = experiment.machine, stage_of(config, STAGE2)
    prepare_random(experiment, STAGE2)  # leaves what stage 2 needs
    alone, steps = prepare(experiment, PLAIN), steps_per_epoch(train_images, stage.batch_size)
    timed = max(1, steps // SHARE)
    rate = matrix_rate(torch.bfloat16 if machine.bfloat16 else torch.float32)
    image = experiment.data.train.normalised(torch.arange(1))
    forward = arithmetic(lambda: alone.objective.model.eval()(image))
    floor = 3 * forward * stage.batch_size * timed / rate
    plain = measure("a plain epoch", steps_of(alone, machine, timed), REPEATS, floor)
    before, start = peak_mb(), time.perf_counter()
    train(experiment, STAGE2)
    seconds = time.perf_counter() - start
    floor = forward * (min(views, stage.epochs) * train_images + test_images) / rate
    stage2 = Timing(f"{stage.epochs} epochs", seconds, seconds, 1, peak_mb() - before, floor)
    return [plain.scaled(steps / timed), stage2]


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
