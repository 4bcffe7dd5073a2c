"""The input pipeline against torchvision's, and caching a teacher's outputs against its plain forward.

    python -m benchmarks.input [--device cuda]

Images in memory: 32 x 32, batches of 64, cropped, mirrored and normalised, against torchvision's transforms in a
DataLoader of two processes. Images in files: JPEGs of 160 to 320 pixels a side at 64 pixels, ours from the file of
decoded pixels, against torchvision's ImageFolder. Teacher's cache: a view of resnet18 against its forward.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks import reference
from benchmarks.setting import draw_images, load_cifar_config, open_random_experiment
from benchmarks.timing import CPU, Timings, measure_in_turn, run_parts
from dataset.loader import iter_training_batches
from dataset.prepare import TrainingData, prepare
from dataset.sources import load_source
from models.taps import TappedModel
from settings.images import Data
from training.evaluation import EVALUATION_BATCH
from training.teacher_outputs import list_cached_places, open_outputs
from training.teacher_outputs import predict_taps as run_teacher

IMAGES, JPEGS, VIEW = 12_800, 2_000, 512  # in memory, in files, of a teacher's view
BATCH, SIDE, TURNS = 64, 64, 3


def iterate(batches: Iterable[object]) -> None:
    for _ in batches:
        pass


def make_epochs(data: TrainingData) -> Callable[[], None]:
    """Return a call that makes the batches of a further epoch."""
    numbers = count()

    def make_epoch() -> None:
        number = next(numbers)
        iterate(iter_training_batches(data, BATCH, 0, number, number))

    return make_epoch


def compare_pipelines(device: torch.device) -> Timings:
    """Time an epoch of batches from memory."""
    with tempfile.TemporaryDirectory() as name:
        experiment = open_random_experiment(load_cifar_config(Path(name)), Path(name), IMAGES, device)
    loader = reference.make_loader(reference.PillowImages(draw_images(IMAGES)), BATCH, CPU)
    calls: dict[str, Callable[[], object]] = {"torchvision": partial(iterate, loader)}
    return measure_in_turn({**calls, "ours": make_epochs(experiment.data)}, TURNS, device)


def write_jpegs(root: Path, images: int) -> None:
    """Write soft blobs under some noise, about as many bytes as a photograph of that size."""
    for number in range(images):
        rng = np.random.default_rng(number)
        height, width = rng.integers(160, 321, 2)
        blobs = Image.fromarray(rng.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8))
        soft = np.asarray(blobs.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
        noisy = (soft + rng.integers(-10, 11, soft.shape, dtype=np.int16)).clip(0, 255).astype(np.uint8)
        path = root / ("test" if number % 10 == 0 else "train") / f"class{number // 10 % 10}" / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy).save(path, quality=85)


def compare_folders(device: torch.device) -> Timings:
    """Time an epoch of JPEGs by ImageFolder, decoding them once, and an epoch from the file of decoded pixels."""
    steps = [
        transforms.Resize((SIDE, SIDE)),
        transforms.RandomCrop(SIDE, padding=4),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
    ]
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "images"
        write_jpegs(root, JPEGS)
        loader = reference.make_loader(ImageFolder(str(root / "train"), transforms.Compose(steps)), BATCH, CPU)
        numbers = count()

        def open_images() -> TrainingData:
            """Decode the images into a cache of their own."""
            cache = Path(name) / f"cache{next(numbers)}"
            settings = Data(source="folder", root=root, image_size=SIDE, cache_dir=cache, in_memory=False)
            return prepare(load_source(settings), settings, device)

        calls: dict[str, Callable[[], object]] = {
            "ImageFolder": partial(iterate, loader),
            "decoding once": open_images,
            "from decoded pixels": make_epochs(open_images()),
        }
        return measure_in_turn(calls, TURNS, device, memory=True)


def compare_teacher_cache(device: torch.device) -> Timings:
    """Time a teacher's forward on ready images, and caching one view of its outputs."""
    with tempfile.TemporaryDirectory() as name:
        experiment = open_random_experiment(load_cifar_config(Path(name)), Path(name), VIEW, device)
        machine = experiment.machine
        network = machine.place(experiment.build(experiment.config.teacher)).eval().requires_grad_(False)
        teacher = TappedModel(network, list_cached_places(experiment))
        ready = experiment.data.train.load_normalised(torch.arange(VIEW, device=device)).split(EVALUATION_BATCH)
        views = count(1)  # a cache of one view more than there was lacks that one

        def run_forward() -> None:
            for images in ready:
                run_teacher(teacher, images, machine)

        calls: dict[str, Callable[[], object]] = {
            "teacher's forward": run_forward,
            "caching a view": lambda: open_outputs(experiment, teacher, next(views)),
        }
        return measure_in_turn(calls, TURNS, device)


PARTS = {
    "Images in memory": compare_pipelines,
    "Images in files": compare_folders,
    "Teacher's cache": compare_teacher_cache,
}

if __name__ == "__main__":
    run_parts(__doc__, PARTS)
