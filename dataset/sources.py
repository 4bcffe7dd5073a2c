"""Where images come from: decoded once into uint8 arrays, memory-mapped afterwards.

Letters: N images, S side in pixels.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import urllib.error
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from configs.schema import Data
from errors import UserError

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}
DIGITS_SPLIT_SEED = 0  # the digits come unsplit; this stratified 70/30 never changes


@dataclass(frozen=True)
class Images:
    """Some labelled images."""

    pixels: np.ndarray  # (N, 3, S, S) uint8
    labels: np.ndarray  # (N,) int64
    names: np.ndarray | None = None  # (N,) str, paths relative to data.root with /, of class folders only

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: np.ndarray) -> Images:
        """The images at `positions`, copied into memory."""
        names = None if self.names is None else self.names[positions]
        return Images(self.pixels[positions], self.labels[positions], names)


@dataclass(frozen=True)
class Source:
    """A data set: training, validation (perhaps empty) and test images, and what they are."""

    train: Images
    val: Images
    test: Images
    classes: list[str]
    fingerprint: str  # of the decoded pixels, labels and split


def load_source(data: Data) -> Source:
    """Load, decode (once) and split the images that a config names.

    Raises:
        UserError: images that are missing, unreadable or cannot be downloaded; a class too small to split.
    """
    train, test, classes, fingerprint = _decoded(data)
    if data.split is not None:
        pooled = _concatenate(train, test)
        train, test = _split(pooled, 1 - data.split, data.seed)
    elif len(test) == 0:
        raise UserError(f"data.root {data.root}: one tree of classes without train/ and test/, set data.split")
    val = train.take(np.arange(0))
    if data.val_fraction > 0:
        train, val = _split(train, data.val_fraction, data.seed)
    key = f"{fingerprint} {data.split} {data.val_fraction} {data.seed if data.split or data.val_fraction else 0}"
    return Source(train, val, test, classes, hashlib.sha256(key.encode()).hexdigest()[:16])


def _split(images: Images, fraction: float, seed: int) -> tuple[Images, Images]:
    try:
        first, second = train_test_split(
            np.arange(len(images)), test_size=fraction, random_state=seed % 2**32, stratify=images.labels
        )
    except ValueError as error:
        raise UserError(f"data.split or data.val_fraction does not fit these images: {error}") from None
    return images.take(np.sort(first)), images.take(np.sort(second))


def _concatenate(first: Images, second: Images) -> Images:
    named = first.names is not None and second.names is not None
    return Images(
        np.concatenate([first.pixels, second.pixels]),
        np.concatenate([first.labels, second.labels]),
        np.concatenate([first.names, second.names]) if named else None,
    )


def _decoded(data: Data) -> tuple[Images, Images, list[str], str]:
    """Training and test images, class names and a fingerprint, from the cache where the source is unchanged."""
    if data.source == "digits":
        train, test = _digits(data.image_size)
        return train, test, [str(digit) for digit in range(10)], _digest(train, test)
    root = data.root or Path("data")
    read, stamp, names = _torchvision(data.source, root) if data.source != "folder" else _folder(root)
    key = hashlib.sha256(f"{data.source} {stamp} {data.image_size}".encode()).hexdigest()[:16]
    folder = data.cache_dir / f"{data.source}-{key}"
    if not (folder / "meta.json").exists():
        _write_cache(folder, *read(data.image_size))
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    train, test = (
        Images(np.load(folder / f"{name}_pixels.npy", mmap_mode="c"), np.load(folder / f"{name}_labels.npy"), part)
        for name, part in zip(("train", "test"), names, strict=True)
    )
    return train, test, meta["classes"], meta["fingerprint"]


def _write_cache(folder: Path, train: Images, test: Images, classes: list[str]) -> None:
    partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    partial.mkdir(parents=True)
    for name, images in (("train", train), ("test", test)):
        np.save(partial / f"{name}_pixels.npy", images.pixels)
        np.save(partial / f"{name}_labels.npy", images.labels)
    meta = {"classes": classes, "fingerprint": _digest(train, test)}
    (partial / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    try:
        partial.replace(folder)
    except OSError:  # another process has finished the same folder meanwhile
        shutil.rmtree(partial)


def _digest(*parts: Images) -> str:
    digest = hashlib.sha256()
    for images in parts:
        digest.update(str(images.pixels.shape).encode())
        digest.update(np.ascontiguousarray(images.pixels).data)
        digest.update(np.ascontiguousarray(images.labels).data)
    return digest.hexdigest()[:16]


def _digits(image_size: int) -> tuple[Images, Images]:
    """scikit-learn's 1,797 handwritten 8x8 digits as RGB, stratified 70/30."""
    bunch = load_digits()
    gray = (bunch.images * (255 / 16)).round().astype(np.uint8)
    pixels = np.stack([_to_array(Image.fromarray(image), image_size) for image in gray])
    images = Images(pixels, bunch.target.astype(np.int64))
    return _split(images, 0.3, DIGITS_SPLIT_SEED)


Reader = Callable[[int], tuple[Images, Images, list[str]]]
Names = tuple[np.ndarray | None, np.ndarray | None]  # of the training and the test images


def _torchvision(name: str, root: Path) -> tuple[Reader, str, Names]:
    """CIFAR-10 or CIFAR-100 by torchvision, downloaded once."""
    from torchvision.datasets import CIFAR10, CIFAR100

    dataset = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]

    def read(image_size: int) -> tuple[Images, Images, list[str]]:
        try:
            root.mkdir(parents=True, exist_ok=True)
            parts = [dataset(str(root), train=train, download=True) for train in (True, False)]
        except (urllib.error.URLError, OSError, RuntimeError) as error:
            with suppress(OSError):
                root.rmdir()  # which removes nothing but an empty folder
            raise UserError(
                f"{name} could not be downloaded to {root} ({error}): put torchvision's archive there, use "
                "data.source=folder with class folders, or data.source=digits, which needs no download"
            ) from None
        images = [
            Images(_resize_all(part.data, image_size), np.asarray(part.targets, dtype=np.int64)) for part in parts
        ]
        return images[0], images[1], list(parts[0].classes)

    return read, str(root.resolve()), (None, None)


def _folder(root: Path) -> tuple[Reader, str, Names]:
    """Class folders under root/train and root/test, or one tree of class folders under root."""
    if not root.is_dir():
        raise UserError(f"data.root {root} is no folder: give one with train/ and test/ class folders")
    both = (root / "train").is_dir() and (root / "test").is_dir()
    train = _list_images(root / "train" if both else root)
    test = _list_images(root / "test") if both else []
    classes = sorted({path.parent.name for path, _ in train})
    strange = sorted({path.parent.name for path, _ in test} - set(classes))
    if strange:
        raise UserError(f"{root / 'test' / strange[0]}: a class without training images in {root / 'train'}")

    def read(image_size: int) -> tuple[Images, Images, list[str]]:
        return _read_images(train, classes, image_size), _read_images(test, classes, image_size), classes

    stamp = hashlib.sha256(str([(str(path), state) for path, state in train + test]).encode()).hexdigest()
    return read, stamp, (_names(train, root), _names(test, root))


def _names(found: list[tuple[Path, tuple[int, int]]], root: Path) -> np.ndarray:
    start = len(root.as_posix()) + 1 if root != Path() else 0
    return np.array([path.as_posix()[start:] for path, _ in found], dtype=np.str_)


def _list_images(folder: Path) -> list[tuple[Path, tuple[int, int]]]:
    """Images of all class folders with their size and time of change, in sorted order."""
    found = []
    for class_folder in sorted(entry.path for entry in os.scandir(folder) if entry.is_dir()):
        for entry in sorted(os.scandir(class_folder), key=lambda entry: entry.name):
            if Path(entry.name).suffix.lower() in IMAGE_SUFFIXES:
                state = entry.stat()
                found.append((Path(entry.path), (state.st_size, state.st_mtime_ns)))
    if not found:
        raise UserError(f"{folder}: no class folder with images ({', '.join(sorted(IMAGE_SUFFIXES))}) in it")
    return found


def _read_images(found: list[tuple[Path, tuple[int, int]]], classes: list[str], image_size: int) -> Images:
    pixels = np.empty((len(found), 3, image_size, image_size), dtype=np.uint8)
    for position, (path, _) in enumerate(found):
        try:
            with Image.open(path) as image:
                pixels[position] = _to_array(image, image_size)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(f"{path} cannot be read as an image ({error}): mend or remove it") from None
    class_of = {name: number for number, name in enumerate(classes)}
    labels = np.array([class_of[path.parent.name] for path, _ in found], dtype=np.int64)
    return Images(pixels, labels)


def _to_array(image: Image.Image, image_size: int) -> np.ndarray:
    """A PIL image as RGB, resized to a square: (3, S, S) uint8.

    Raises:
        ValueError: 32-bit or float pixels, whose brightest value a file does not tell.
    """
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode} have no fixed range, save it with 8 or 16 bits")
    if image.mode.startswith("I;16"):  # Pillow would clip at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "P":  # a transparent palette may only become RGBA
        image = image.convert("RGBA")
    image = image.convert("RGB")
    if image.size != (image_size, image_size):
        image = image.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(image).transpose(2, 0, 1)


def _resize_all(pixels: np.ndarray, image_size: int) -> np.ndarray:
    """(N, H, W, 3) uint8 as (N, 3, S, S)."""
    if pixels.shape[1:3] == (image_size, image_size):
        return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    return np.stack([_to_array(Image.fromarray(image), image_size) for image in pixels])
