"""Where images come from: decoded once into files of uint8 pixels, which are mapped or read afterwards.

Letters: N images, S side in pixels.
"""

from __future__ import annotations

import hashlib
import urllib.error
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dataset.files.cache_folder import gone_if_empty, see_that_it_can_be_written
from dataset.files.class_folders import ClassFolders, ImageFile, find_images
from dataset.files.decode import VERSION, decode_files, to_array
from dataset.files.decoded_cache import Decoded, Images, Undecoded, read_cache, write_cache
from dataset.files.image_list import listed_images
from dataset.files.stored_pixels import Target
from dataset.identity import DataIdentity, identify, part_identity
from dataset.memory import keeps_in_memory, see_that_disk_holds, see_that_images_fit
from errors import MachineError, UserError, in_words, readable
from files import locked, remove_left_behind, remove_lock_left_behind
from settings.images import Data

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
        parts = (self.train, self.val, self.test)
        return identify(self.classes, *(part_identity(part.pixels, part.labels, part.digest) for part in parts))


def load_source(data: Data) -> Source:
    """Load, decode (once) and split the images that a config names.

    Raises:
        UserError: images that are missing, unreadable or cannot be downloaded; a class too small to split; before
            anything is written, a transform in data.augment that there is not.
    """
    if data.augment:
        from dataset.views.transforms import (
            check_transforms,  # with torch behind it, which reading images does not need
        )

        check_transforms(data.augment, data.image_size)
    train, test, classes = _decoded(data)
    if data.split is not None:
        train, test = _split(train.joined(test), 1 - data.split, data.seed)
    elif len(test) == 0:
        raise UserError(
            f"data.root {data.root}: no test images (one tree of classes, or a list without them), set data.split"
        )
    val = train.take(np.arange(0))
    if data.val_fraction > 0:
        train, val = _split(train, data.val_fraction, data.seed)
    return Source(train, val, test, classes)


def _split(images: Images, fraction: float, seed: int) -> tuple[Images, Images]:
    """Divide images in two, the second part a `fraction` of them, classes in proportion.

    Raises:
        UserError: a class too small to split.
    """
    from sklearn.model_selection import train_test_split  # two seconds to import, for those who need it

    try:
        first, second = train_test_split(
            np.arange(len(images)), test_size=fraction, random_state=seed % 2**32, stratify=images.labels
        )
    except ValueError as error:
        raise UserError(f"data.split or data.val_fraction does not fit these images: {error}") from None
    return images.take(np.sort(first)), images.take(np.sort(second))


def _decoded(data: Data) -> tuple[Images, Images, list[str]]:
    """Training and test images and class names, from the cache where the source is unchanged."""
    if data.source == "digits":
        train, test = _digits(data.image_size)
        return train, test, [str(digit) for digit in range(10)]
    root = data.root or Path("data")
    found = _files(data, root) if data.source in FILES else _torchvision(data.source, root, data.image_size)
    folder = _cache_of(data, found.stamp)
    if not folder.exists():
        see_that_it_can_be_written(data.cache_dir)
        see_that_disk_holds(data.cache_dir, found.count, data.image_size)
    in_memory = keeps_in_memory(data.in_memory, found.count, data.image_size)
    cached = read_cache(folder, in_memory)
    if cached is None:
        cached = _decode(folder, found, in_memory)
    else:
        with suppress(UserError, MachineError):  # a cache that others own may be read-only
            remove_left_behind(data.cache_dir)
            remove_lock_left_behind(_lock_of(folder))
    train, test, classes = cached
    return replace(train, names=found.names[0]), replace(test, names=found.names[1]), classes


def _decode(folder: Path, found: _Found, in_memory: bool) -> Decoded:
    """Fill a cache, or wait while another process does and take what it has left."""
    with gone_if_empty(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(_lock_of(folder), wait=True):
            cached = read_cache(folder, in_memory)
            if cached is None:
                write_cache(folder, found.read())
                cached = read_cache(folder, in_memory)
    if cached is None:
        raise UserError(f"{folder}: what was written there a moment ago reads differently, the disk is failing")
    return cached


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _cache_of(data: Data, stamp: str) -> Path:
    """Where decoded images are kept of a source whose files are as `stamp` says."""
    key = f"{data.source} {stamp} {data.image_size} {data.bit_depth} {VERSION}"
    if data.resize != "squash":  # caches from before there was a choice keep their names
        key += f" {data.resize}"
    return data.cache_dir / f"{data.source}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def _digits(image_size: int) -> tuple[Images, Images]:
    """scikit-learn's 1,797 handwritten 8x8 digits as RGB, stratified 70/30."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    see_that_images_fit(len(bunch.images), image_size)
    gray = (bunch.images * (255 / 16)).round().astype(np.uint8)
    pixels = np.stack([to_array(Image.fromarray(image), image_size) for image in gray])
    images = Images(pixels, bunch.target.astype(np.int64))
    return _split(images, 0.3, DIGITS_SPLIT_SEED)


@dataclass(frozen=True)
class _Found:
    """Images that a source has, not opened yet."""

    count: int  # of training and test images together
    read: Callable[[], Undecoded]
    stamp: str  # what changes when the images do
    names: tuple[NDArray[np.str_] | None, NDArray[np.str_] | None] = (None, None)  # of training and test images


def _torchvision(name: str, root: Path, image_size: int) -> _Found:
    """CIFAR-10 or CIFAR-100 by torchvision, downloaded once."""
    from torchvision.datasets import CIFAR10, CIFAR100

    dataset = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]

    def read() -> Undecoded:
        try:
            root.mkdir(parents=True, exist_ok=True)
            parts = [dataset(str(root), train=train, download=True) for train in (True, False)]
        except (urllib.error.URLError, OSError, RuntimeError) as error:
            with suppress(OSError):
                root.rmdir()  # which removes nothing but an empty folder
            raise _not_downloaded(name, root, error) from None
        labels = [np.asarray(part.targets, dtype=np.int64) for part in parts]
        decode = partial(_resize_all, np.concatenate([part.data for part in parts]), image_size)
        return Undecoded((labels[0], labels[1]), list(parts[0].classes), image_size, decode)

    return _Found(CIFAR_IMAGES, read, str(root.resolve()))


def _not_downloaded(name: str, root: Path, error: Exception) -> UserError | MachineError:
    """Why there are no images: a full disk is the machine's; a folder that is none, or no network, is not."""
    what = f"{name} could not be downloaded to {root}"
    told = in_words(error, what) if isinstance(error, OSError) else None
    return told or UserError(
        f"{what} ({error}): put torchvision's archive there, use data.source=folder with class folders, or "
        "data.source=digits, which needs no download"
    )


def _files(data: Data, root: Path) -> _Found:
    """Class folders under root/train and root/test, one tree of class folders under root, or the list `root`."""
    find = listed_images if data.source == "csv" else find_images
    found = find(root, data.follow_links)
    class_of = {name: number for number, name in enumerate(found.classes)}
    everything = found.train + found.test

    def labels(part: list[ImageFile]) -> NDArray[np.int64]:
        return np.array([class_of[image.label] for image in part], dtype=np.int64)

    def read() -> Undecoded:
        paths = [image.path for image in everything]

        def decode(target: Target) -> None:
            decode_files(paths, data.image_size, data.bit_depth, data.resize, target)

        return Undecoded((labels(found.train), labels(found.test)), found.classes, data.image_size, decode)

    names = _names(found.train, found.root), _names(found.test, found.root)
    return _Found(len(everything), read, _stamp(data, found), names)


def _stamp(data: Data, found: ClassFolders) -> str:
    """A digest of names, sizes and times of change, of which one differs when a file does."""
    everything = found.train + found.test
    states: list[object] = [(str(image.path), (image.size, image.changed)) for image in everything]
    if data.source == "csv":  # what an edit of the list alone changes
        states += [len(found.train), [image.label for image in everything]]
    return hashlib.sha256(str(states).encode()).hexdigest()


def _names(images: list[ImageFile], root: Path) -> NDArray[np.str_]:
    start = len(root.as_posix()) + 1 if root != Path() else 0
    return np.array([readable(image.path.as_posix()[start:]) for image in images], dtype=np.str_)


def _resize_all(images: NDArray[np.uint8], image_size: int, into: Target, piece: int = 1000) -> None:
    """(N, H, W, 3) uint8 as (N, 3, S, S), `piece` at a time."""
    for start in range(0, len(images), piece):
        some = images[start : start + piece]
        into[start : start + piece] = np.stack([to_array(Image.fromarray(image), image_size) for image in some])
