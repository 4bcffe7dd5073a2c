"""Images of another data set than a run's, as its networks see them, for a linear probe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset.files.class_folders import ANNOTATIONS
from dataset.images import ImageTensors
from dataset.prepare import TrainingData
from dataset.sources import Source, load_parts
from errors import UserError, make_readable
from settings.images import Source as SourceName

UNPACKED: dict[str, SourceName] = {  # folders that torchvision unpacks
    "stl10_binary": "stl10",
    "cifar-10-batches-py": "cifar10",
    "cifar-100-python": "cifar100",
}
LEAST = 2  # training images of a class: one to fit, one to choose the strength on
LAYOUTS = "class folders in train/ and test/ (or val/), Tiny-ImageNet, STL-10, CIFAR, or a CSV list"


@dataclass(frozen=True)
class ProbeSet:
    """Training and test images of another data set, normalised as a run's images are."""

    name: str  # a folder's or a list's name, or that of a known data set
    source: Source
    train: ImageTensors
    test: ImageTensors


def detect_layout(path: Path) -> tuple[SourceName, Path]:
    """Return `data.source` and `data.root` of the images at `path`.

    Raises:
        UserError: nothing is there, or a layout that is not read.
    """
    if not path.exists():
        raise UserError(f"--probe {path}: no such file or folder, name one with {LAYOUTS}")
    if path.is_file() and path.suffix.lower() == ".csv":
        return "csv", path
    for name, source in UNPACKED.items():
        if (path / name).is_dir():
            return source, path
        if path.resolve().name == name and path.is_dir():
            return source, path.resolve().parent
    has_test = (path / "test").is_dir() or (path / "val").is_dir()
    if (path / "val" / ANNOTATIONS).is_file() or ((path / "train").is_dir() and has_test):
        return "folder", path
    raise UserError(f"--probe {path}: its layout is not read, name {LAYOUTS}")


def load_probe_set(path: Path, data: TrainingData) -> ProbeSet:
    """Load images at a run's size, with its normalisation and without cues.

    Raises:
        UserError: images that cannot be read, a list without test images, a class with a single training image.
    """
    name, root = detect_layout(path)
    changes = {"source": name, "root": root, "follow_links": True, "split": None, "bit_depth": None}
    train, test, classes = load_parts(data.settings.model_copy(update=changes), val_is_test=True)
    if len(test) == 0:
        raise UserError(f"--probe {path}: no test images, give some of them the split test")
    counts = np.bincount(train.labels, minlength=len(classes))
    if counts.min() < LEAST:
        few = int(counts.argmin())
        raise UserError(
            f"--probe {path}: class {classes[few]} has {counts[few]} training image, at least {LEAST} are needed: "
            "add images or remove the class"
        )
    tensors = (ImageTensors(part, data.mean, data.std, data.train.device) for part in (train, test))
    title = make_readable(path.resolve().stem if name == "csv" else path.resolve().name)
    return ProbeSet(
        title if name in ("folder", "csv") else name, Source(train, train.take(slice(0)), test, classes), *tensors
    )
