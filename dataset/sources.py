"""Where images come from: decoded once into uint8 arrays, memory-mapped afterwards.

Letters: N images, S side in pixels.
"""

from __future__ import annotations

import hashlib
import urllib.error
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from configs.images import Data
from dataset.cache_folder import see_that_it_can_be_written
from dataset.class_folders import ImageFile, find_images
from dataset.decode import VERSION, decode_files, to_array
from dataset.decoded_cache import Decoded, Images, read_cache, write_cache
from dataset.identity import DataIdentity, identify
from dataset.image_list import listed_images
from dataset.memory import see_that_images_fit
from dataset.transforms import check_transforms
from errors import MachineError, UserError, in_words, readable
from files import remove_left_behind

FILES = ("folder", "csv")  # sources of images that lie in files of their own
CIFAR_IMAGES = 60_000  # training and test
DIGITS_SPLIT_SEED = 0  # the digits come unsplit; this stratified 70/30 never changes


@dataclass(frozen=True)
class Source:
    """A data set: training, validation (perhaps empty) and test images, and what they are."""

    train: Images
    val: Images
    test: Images
    classes: list[str]

    @cached_property
    def identity(self) -> DataIdentity:
        """Digests of all pixels and labels, computed once."""
        return identify(self.classes, *((part.pixels, part.labels) for part in (self.train, self.val, self.test)))


def load_source(data: Data) -> Source:
    """Load, decode (once) and split the images that a config names.

    Raises:
        UserError: images that are missing, unreadable or cannot be downloaded; a class too small to split; before
            anything is written, a transform in data.augment that there is not.
    """
    check_transforms(data.augment, data.image_size)
    train, test, classes = _decoded(data)
    if data.split is not None:
        pooled = _concatenate(train, test)
        train, test = _split(pooled, 1 - data.split, data.seed)
    elif len(test) == 0:
        raise UserError(
            f"data.root {data.root}: no test images (one tree of classes, or a list without them), set data.split"
        )
    val = train.take(np.arange(0))
    if data.val_fraction > 0:
        train, val = _split(train, data.val_fraction, data.seed)
    return Source(train, val, test, classes)


def _split(images: Images, fraction: float, seed: int) -> tuple[Images, Images]:
    from sklearn.model_selection import train_test_split  # two seconds to import, for those who need it

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


def _decoded(data: Data) -> tuple[Images, Images, list[str]]:
    """Training and test images and class names, from the cache where the source is unchanged."""
    if data.source == "digits":
        train, test = _digits(data.image_size)
        return train, test, [str(digit) for digit in range(10)]
    root = data.root or Path("data")
    read, stamp, names = _files(data, root) if data.source in FILES else _torchvision(data.source, root)
    key = f"{data.source} {stamp} {data.image_size} {data.bit_depth} {VERSION}"
    if data.resize != "squash":  # caches from before there was a choice keep their names
        key += f" {data.resize}"
    folder = data.cache_dir / f"{data.source}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    cached = read_cache(folder)
    if cached is not None:
        with suppress(UserError, MachineError):  # a cache that others own may be read-only
            remove_left_behind(data.cache_dir)
    else:
        see_that_it_can_be_written(data.cache_dir)
        write_cache(folder, *read(data.image_size))
        cached = read_cache(folder)
    if cached is None:
        raise UserError(f"{folder}: what was written there a moment ago reads differently, the disk is failing")
    train, test, classes = cached
    return replace(train, names=names[0]), replace(test, names=names[1]), classes


def _digits(image_size: int) -> tuple[Images, Images]:
    """scikit-learn's 1,797 handwritten 8x8 digits as RGB, stratified 70/30."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    see_that_images_fit(len(bunch.images), image_size)
    gray = (bunch.images * (255 / 16)).round().astype(np.uint8)
    pixels = np.stack([to_array(Image.fromarray(image), image_size) for image in gray])
    images = Images(pixels, bunch.target.astype(np.int64))
    return _split(images, 0.3, DIGITS_SPLIT_SEED)


Reader = Callable[[int], Decoded]
Names = tuple[NDArray[np.str_] | None, NDArray[np.str_] | None]  # of the training and the test images


def _torchvision(name: str, root: Path) -> tuple[Reader, str, Names]:
    """CIFAR-10 or CIFAR-100 by torchvision, downloaded once."""
    from torchvision.datasets import CIFAR10, CIFAR100

    dataset = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]

    def read(image_size: int) -> Decoded:
        see_that_images_fit(CIFAR_IMAGES, image_size)
        try:
            root.mkdir(parents=True, exist_ok=True)
            parts = [dataset(str(root), train=train, download=True) for train in (True, False)]
        except (urllib.error.URLError, OSError, RuntimeError) as error:
            with suppress(OSError):
                root.rmdir()  # which removes nothing but an empty folder
            raise _not_downloaded(name, root, error) from None
        images = [
            Images(_resize_all(part.data, image_size), np.asarray(part.targets, dtype=np.int64)) for part in parts
        ]
        return images[0], images[1], list(parts[0].classes)

    return read, str(root.resolve()), (None, None)


def _not_downloaded(name: str, root: Path, error: Exception) -> UserError | MachineError:
    """Why there are no images: a full disk is the machine's; a folder that is none, or no network, is not."""
    what = f"{name} could not be downloaded to {root}"
    told = in_words(error, what) if isinstance(error, OSError) else None
    return told or UserError(
        f"{what} ({error}): put torchvision's archive there, use data.source=folder with class folders, or "
        "data.source=digits, which needs no download"
    )


def _files(data: Data, root: Path) -> tuple[Reader, str, Names]:
    """Class folders under root/train and root/test, one tree of class folders under root, or the list `root`."""
    found = (
        listed_images(root, data.follow_links) if data.source == "csv" else find_images(root, data.follow_links)
    )
    classes = found.classes
    class_of = {name: number for number, name in enumerate(classes)}
    everything = found.train + found.test

    def read(image_size: int) -> Decoded:
        see_that_images_fit(len(everything), image_size)
        pixels = decode_files([image.path for image in everything], image_size, data.bit_depth, data.resize)
        labels = np.array([class_of[image.label] for image in everything], dtype=np.int64)
        count = len(found.train)
        return Images(pixels[:count], labels[:count]), Images(pixels[count:], labels[count:]), classes

    states: list[object] = [(str(image.path), (image.size, image.changed)) for image in everything]
    if data.source == "csv":  # what an edit of the list alone changes
        states += [len(found.train), [image.label for image in everything]]
    stamp = hashlib.sha256(str(states).encode()).hexdigest()
    return read, stamp, (_names(found.train, found.root), _names(found.test, found.root))


def _names(images: list[ImageFile], root: Path) -> NDArray[np.str_]:
    start = len(root.as_posix()) + 1 if root != Path() else 0
    return np.array([readable(image.path.as_posix()[start:]) for image in images], dtype=np.str_)


def _resize_all(pixels: np.ndarray, image_size: int) -> np.ndarray:
    """(N, H, W, 3) uint8 as (N, 3, S, S)."""
    if pixels.shape[1:3] == (image_size, image_size):
        return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    return np.stack([to_array(Image.fromarray(image), image_size) for image in pixels])
