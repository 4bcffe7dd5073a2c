"""Images a second through crop, flip and normalisation, against torchvision's transforms in a 2-worker DataLoader.

    python -m benchmarks.input_pipeline

Also the transforms of data.augment, without and with processes of their own, against the same of torchvision's v2
in such a DataLoader, all three in turn.

Batches of 64 of 50,000 random 32x32 images. The DataLoader is timed on some batches after its processes have
started, and scaled to an epoch. The floor here is not arithmetic: it is the time that reading the bytes of the
images and writing them as float32 takes at the rate of copying memory. Memory is that of the main process.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from benchmarks import reference
from benchmarks.setting import SIDE, TRAIN, cifar_config, random_experiment, random_images
from benchmarks.timing import CPU, Claim, Timing, command_line, in_own_process, measure, measure_in_turn, peak_mb
from dataset.files.decoded_cache import Images
from dataset.loader import training_batches
from dataset.prepare import TrainingData

BATCH, PUBLISHED_BATCHES, REPEATS = 64, 150, 7
AUGMENTED, TURNS = 6_400, 3  # images of an epoch with transforms, of which each costs a call an image
AUGMENT: list[dict[str, dict[str, Any]]] = [{"RandAugment": {"magnitude": 7}}, {"RandomErasing": {"p": 0.5}}]
CASES = ("published", "ours", "transforms")


def copy_rate(megabytes: int = 256) -> float:
    """Return the bytes a second that copying memory reads and writes together."""
    source = torch.zeros(megabytes << 20, dtype=torch.uint8)
    target = torch.zeros_like(source)
    return 2 * source.nbytes / measure("", lambda: target.copy_(source), 5).fastest


def published() -> Timing:
    images = random_images(TRAIN)
    before = peak_mb()
    batches = iter(reference.loader(reference.PillowImages.of(images), BATCH, CPU))
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


class _Transformed(Dataset[tuple[Tensor, int]]):
    """uint8 images through torchvision's v2, as `AUGMENT` says."""

    def __init__(self, images: Images) -> None:
        self.pixels, self.labels = torch.from_numpy(images.pixels[:]), images.labels
        own = [getattr(v2, name)(**options) for entry in AUGMENT for name, options in entry.items()]
        ends = [v2.ToDtype(torch.float32, scale=True), v2.Normalize((0.507, 0.487, 0.441), (0.267, 0.256, 0.276))]
        self.transform = v2.Compose([v2.RandomCrop(SIDE, padding=4), v2.RandomHorizontalFlip(), *own, *ends])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.pixels[index]), int(self.labels[index])


def transforms() -> list[Timing]:
    """Time an epoch of images with transforms: torchvision's loop, ours, and ours with as many processes."""
    loader = DataLoader(
        _Transformed(random_images(AUGMENTED)), BATCH, shuffle=True, num_workers=reference.WORKERS, drop_last=True
    )
    numbers = count()

    def plain() -> None:
        for _ in loader:
            pass

    calls: dict[str, Callable[[], object]] = {"torchvision v2": plain}
    for workers in (0, 2):
        given = f"data.augment={json.dumps(AUGMENT)}", f"data.workers={workers}"
        data = random_experiment(cifar_config(Path(), *given), Path(), AUGMENTED, 0).data
        calls[f"{workers} workers"] = partial(_through, data, numbers)
    return measure_in_turn(calls, TURNS, [None] * len(calls))


def _through(data: TrainingData, numbers: Iterator[int]) -> None:
    number = next(numbers)
    for _ in training_batches(data, BATCH, 0, number, number):
        pass


def run(case: str) -> list[Timing]:
    if case == "transforms":
        return transforms()
    return [published() if case == "published" else ours()]


def claims() -> list[Claim]:
    [base], [timing], [plain, *augmented] = (in_own_process("input_pipeline", case) for case in CASES)
    of = f"x {TRAIN / base.seconds:,.0f} images/s of torchvision, so {TRAIN / timing.seconds:,.0f}"
    return [
        Claim("input pipeline, 50,000 images: torchvision, 2 workers", timing=base),
        Claim("input pipeline, 50,000 images", base.seconds / timing.seconds, of, 20, timing=timing),
        Claim(f"RandAugment and RandomErasing, {AUGMENTED:,} images: torchvision v2, 2 workers", timing=plain),
        *(
            Claim(f"the same by data.augment, {one.name}", plain.seconds / one.seconds, "x as fast", timing=one)
            for one in augmented
        ),
    ]


if __name__ == "__main__":
    command_line(__doc__, CASES, run, claims)
