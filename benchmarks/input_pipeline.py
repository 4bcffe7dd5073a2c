"""Images a second through crop, flip and normalisation, against torchvision's transforms in a 2-worker DataLoader.

    python -m benchmarks.input_pipeline

Batches of 64 of 50,000 random 32x32 images. The DataLoader is timed on some batches after its processes have
started, and scaled to an epoch. The floor here is not arithmetic: it is the time that reading the bytes of the
images and writing them as float32 takes at the rate of copying memory. Memory is that of the main process.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch

from benchmarks import reference
from benchmarks.setting import TRAIN, cifar_config, random_experiment, random_images
from benchmarks.timing import Claim, Timing, command_line, in_own_process, measure, peak_mb
from dataset.loader import training_batches

BATCH, PUBLISHED_BATCHES, REPEATS = 64, 150, 7
CASES = ("published", "ours")


def copy_rate(megabytes: int = 256) -> float:
    """Bytes a second that copying memory reads and writes together."""
    source = torch.zeros(megabytes << 20, dtype=torch.uint8)
    target = torch.zeros_like(source)
    return 2 * source.nbytes / measure("", lambda: target.copy_(source), 5).fastest


def published() -> Timing:
    images = random_images(TRAIN)
    before = peak_mb()
    batches = iter(reference.loader(reference.PillowImages.of(images), BATCH))
    for _ in islice(batches, 2 * reference.WORKERS):  # those that were made while the processes started
        pass
    start = time.perf_counter()
    count = sum(len(batch[0]) for batch in islice(batches, PUBLISHED_BATCHES))
    seconds = (time.perf_counter() - start) * TRAIN / count
    return Timing("torchvision transforms, 2 workers", seconds, seconds, 1, peak_mb() - before)


def ours() -> Timing:
    experiment = random_experiment(cifar_config(Path()), Path(), TRAIN, 0)
    num_bytes = 5 * math.prod(experiment.data.train.pixels.shape)  # one read and four written of each
    floor = num_bytes / copy_rate()
    epochs = iter(range(REPEATS + 1))

    def epoch() -> None:
        number = next(epochs)
        for _ in training_batches(experiment.data, BATCH, 0, number, number):
            pass

    return replace(measure("this project", epoch, REPEATS), floor=floor)


def run(case: str) -> list[Timing]:
    return [published() if case == "published" else ours()]


def claims() -> list[Claim]:
    [base], [timing] = (in_own_process("input_pipeline", case) for case in CASES)
    of = f"x {TRAIN / base.seconds:,.0f} images/s of torchvision, so {TRAIN / timing.seconds:,.0f}"
    return [
        Claim("input pipeline, 50,000 images: torchvision, 2 workers", timing=base),
        Claim("input pipeline, 50,000 images", base.seconds / timing.seconds, of, 20, timing=timing),
    ]


if __name__ == "__main__":
    command_line(__doc__, CASES, run, claims)
