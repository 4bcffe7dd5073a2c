"""Images that stay in files: memory by their number, and images a second against torchvision's ImageFolder.

    python -m benchmarks.loading [--images 2000 20000] [--size 64] [--folder DIR]

Makes class folders of JPEGs of 160 to 320 pixels a side. Memory is what a process adds to its imports, at its
peak, that decodes all of them, goes through an epoch of training batches and through the test images. Rates are
of whole epochs of the larger folder, cropped, mirrored and normalised, one loop after the other in turn: ours from
the file of decoded pixels, torchvision's from the JPEGs, with 2 processes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.timing import Claim, Timing, in_own_process, measure_in_turn, peak_mb, table
from dataset.loader import training_batches
from dataset.prepare import TrainingData, prepare
from dataset.sources import load_source
from settings.images import Data

CLASSES, TEST = 10, 200  # test images, in either folder
SIDES = (160, 320)  # pixels of the JPEGs
BATCH, REPEATS, WORKERS = 64, 3, 2
CASES = ("in files, fewer", "in files, more", "in memory, fewer", "in memory, more", "decoding", "epochs")


@dataclass(frozen=True)
class Place:
    """Folders of JPEGs and what is made of them."""

    folder: Path
    images: tuple[int, int] = (2000, 20_000)  # to train on, in either folder
    size: int = 64

    def root(self, which: int) -> Path:
        return self.folder / f"{self.images[which]}-images"

    def data(self, which: int, cache: str, in_memory: bool, workers: int = 0) -> TrainingData:
        """Return a folder's images as this project has them; decoded where `cache` has not been used before."""
        settings = Data(
            source="folder",
            root=self.root(which),
            image_size=self.size,
            cache_dir=self.folder / cache,
            in_memory=in_memory,
            workers=workers,
        )
        return prepare(load_source(settings), settings, torch.device("cpu"))

    def make(self) -> None:
        """Write JPEGs where there are none yet."""
        for which, number in enumerate(self.images):
            if not self.root(which).exists():
                jobs = [("train", one) for one in range(number)] + [("test", one) for one in range(TEST)]
                for part, name in {(part, number % CLASSES) for part, number in jobs}:
                    (self.root(which) / part / f"class{name}").mkdir(parents=True)
                with ThreadPoolExecutor(WORKERS) as pool:
                    list(pool.map(partial(_write_jpeg, self.root(which)), jobs))


def _write_jpeg(root: Path, job: tuple[str, int]) -> None:
    """Write soft blobs under some noise, about as many bytes as a photograph of that size."""
    part, number = job
    rng = np.random.default_rng([number, part == "test"])
    height, width = rng.integers(SIDES[0], SIDES[1] + 1, 2)
    blobs = Image.fromarray(rng.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8))
    soft = np.asarray(blobs.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    noisy = (soft + rng.integers(-10, 11, soft.shape, dtype=np.int16)).clip(0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(root / part / f"class{number % CLASSES}" / f"{number:06}.jpg", quality=85)


def memory(place: Place, which: int, in_memory: bool) -> Timing:
    """Time a first epoch from JPEGs alone, with what it adds to the memory of the imports."""
    name, before, start = f"memory{which}{in_memory}", peak_mb(), time.perf_counter()
    data = place.data(which, name, in_memory)
    _epoch(data, 0)
    for _ in data.test.batches(BATCH):
        pass
    seconds = time.perf_counter() - start
    return Timing(f"{before:.0f} MB of imports", seconds, seconds, 1, peak_mb() - before)


def decoding(place: Place) -> Timing:
    """Time decoding the larger folder, once and for all."""
    start = time.perf_counter()
    place.data(1, "cache", in_memory=False)
    seconds = time.perf_counter() - start
    return Timing("decoding once", seconds, seconds, 1, 0.0)


def epochs(place: Place) -> list[Timing]:
    """Time epochs of the larger folder: torchvision's, and ours without and with processes of its own."""
    plain, number = _image_folder(place), count()
    ours = [place.data(1, "cache", in_memory=False, workers=workers) for workers in (0, WORKERS)]

    def through_plain() -> None:
        for _ in plain:
            pass

    calls: dict[str, Callable[[], object]] = {"ImageFolder": through_plain}
    for data in ours:
        calls[f"{data.settings.workers} workers"] = partial(lambda data: _epoch(data, next(number)), data)
    return measure_in_turn(calls, REPEATS, [None] * len(calls))


def _epoch(data: TrainingData, number: int) -> None:
    for _ in training_batches(data, BATCH, 0, number, number):
        pass


def _image_folder(place: Place) -> DataLoader[tuple[torch.Tensor, int]]:
    steps = [
        transforms.Resize((place.size, place.size)),
        transforms.RandomCrop(place.size, padding=4),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
    ]
    images = ImageFolder(str(place.root(1) / "train"), transforms.Compose(steps))
    return DataLoader(images, BATCH, shuffle=True, num_workers=WORKERS, drop_last=True)


def run(case: str, place: Place) -> list[Timing]:
    match case:
        case "decoding":
            return [decoding(place)]
        case "epochs":
            return epochs(place)
        case _:
            where, which = case.split(", ")
            return [memory(place, ("fewer", "more").index(which), where == "in memory")]


def claims(place: Place | None = None) -> list[Claim]:
    with ExitStack() as stack:
        if place is None or place.folder == Path():
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            place = Place(folder) if place is None else replace(place, folder=folder)
        place.make()
        fewer, more = place.images
        found = {case: in_own_process("loading", case, options(place)) for case in CASES}
    lines = []
    for where in ("in files", "in memory"):
        [small], [large] = found[f"{where}, fewer"], found[f"{where}, more"]
        totals = [one.peak_mb + float(one.name.split()[0]) for one in (small, large)]
        target = 1.1 if where == "in files" else None
        lines += [
            Claim(f"{where}, {fewer:,} images: memory added to {small.name}", timing=small),
            Claim(f"{where}, {more:,} images: memory added to {large.name}", timing=large),
            Claim(
                f"{where}: peak memory",
                totals[1] / totals[0],
                f"x {totals[0]:,.0f} MB with {more / fewer:g} x the images",
                target,
                at_most=True,
            ),
        ]
    ([once], [plain, *ours]), seen = (found["decoding"], found["epochs"]), more // BATCH * BATCH
    of = f"x {seen / plain.seconds:,.0f} images/s of ImageFolder, so "
    lines.append(Claim(f"epoch of {more:,} JPEGs: ImageFolder, {WORKERS} workers", timing=plain))
    for one in ours:
        what = f"epoch of {more:,} images: from the file, {one.name}"
        lines.append(Claim(what, plain.seconds / one.seconds, f"{of}{seen / one.seconds:,.0f}", 1, timing=one))
    first = once.seconds + ours[0].seconds
    lines.append(
        Claim("the first epoch, with decoding", plain.seconds / first, "x as fast as ImageFolder's", timing=once)
    )
    return lines


def options(place: Place) -> list[str]:
    images = [str(number) for number in place.images]
    return ["--images", *images, "--size", str(place.size), "--folder", str(place.folder)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs=2, default=Place.images, help="to train on: a few, and many")
    parser.add_argument("--size", type=int, default=Place.size, help="side in pixels that images are resized to")
    parser.add_argument("--folder", type=Path, default=Path(), help="where JPEGs are made and kept")
    parser.add_argument("--case", choices=CASES, help="measure one case in this process and print JSON")
    given = parser.parse_args()
    chosen = Place(given.folder, tuple(given.images), given.size)
    if given.case is None:
        print(table(claims(chosen)))
    else:
        print(json.dumps([asdict(timing) for timing in run(given.case, chosen)]))
