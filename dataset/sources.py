"""Sources of images, decoded once into a file that is mapped or read.

Letters: N images, S side in pixels.
"""

from __future__ import annotations

import urllib.error
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dataset.files.class_folders import ImageFile, ImageFiles, find_images
from dataset.files.decode import VERSION, decode_files, to_array
from dataset.files.decoded_cache import (
    Decoded,
    Images,
    Undecoded,
    decode_into_memory,
    join_images,
    read_cache,
    write_cache,
)
from dataset.files.image_list import list_images
from dataset.files.stored_pixels import Pixels
from dataset.identity import DataIdentity, PartIdentity, compute_array_digest, compute_digest
from dataset.long_tail import choose_long_tail
from dataset.memory import check_free_memory, check_images_fit, check_writable, uses_memory
from dataset.repeats import Repeats, count_repeats
from errors import MachineError, UserError, make_readable, to_user_error
from files import hold_lock, remove_abandoned_folders, remove_abandoned_lock
from settings.images import Data
from settings.section import count_share

FILES = ("folder", "csv")  # sources of images that lie in files of their own
CIFAR_IMAGES = 60_000  # training and test
STL10_IMAGES = 13_000  # those with labels
DIGITS_SPLIT_SEED, DIGITS_TEST = 0, 540  # the digits come unsplit; this stratified 70/30 never changes


@dataclass(frozen=True)
class Source:
    """A data set: training, validation (perhaps empty) and test images."""

    train: Images
    val: Images
    test: Images
    classes: list[str]

    @cached_property
    def identity(self) -> DataIdentity:
        """Digests of all pixels and labels, computed once."""
        train, val, test = (
            PartIdentity(
                len(part), part.digest or compute_array_digest(part.pixels), compute_array_digest(part.labels)
            )
            for part in (self.train, self.val, self.test)
        )
        return DataIdentity(tuple(self.classes), train, val, test, VERSION)

    @cached_property
    def repeats(self) -> Repeats:
        """Numbers of images that stand more than once, counted once."""
        return count_repeats(self.train, self.val, self.test)


def load_source(data: Data, dry_run: bool = False) -> Source:
    """Load, decode (once) and split the images that a config names.

    dry_run: write and download nothing; images without a cache are decoded into memory.

    Raises:
        UserError: images that are missing, unreadable or cannot be downloaded; a class too small to split; an
            unknown transform in data.augment, before anything is written.
    """
    if data.augment:
        from dataset.views.transforms import check_transforms  # imports torch, which reading images does not need

        check_transforms(data.augment, data.image_size)
    train, test, classes = load_parts(data, dry_run=dry_run)
    if data.split is not None:
        pool = join_images(train, test)
        train, test = _split(
            pool, len(pool.labels) - count_share(data.split, len(pool.labels)), data.seed, classes
        )
    elif len(test) == 0:
        raise UserError(
            f"data.root {data.root}: no test images (one tree of classes, or a list without them), set data.split"
        )
    if data.imbalance > 1:
        train = train.take(choose_long_tail(train.labels, classes, data.imbalance, data.seed))
    val = train.take(slice(0))
    if data.val_fraction > 0:
        train, val = _split(train, count_share(data.val_fraction, len(train.labels)), data.seed, classes)
    return Source(train, val, test, classes)


def load_parts(data: Data, val_is_test: bool = False, dry_run: bool = False) -> Decoded:
    """Load training images, test images and class names as a source has them, before any split.

    Args:
        data: the config's section.
        val_is_test: whether a folder's val/ takes the place of a missing test/.
        dry_run: write nothing.
    """
    return _load_digits(data.image_size) if data.source == "digits" else _load_cached(data, val_is_test, dry_run)


def _split(images: Images, count: int, seed: int, classes: Sequence[str]) -> tuple[Images, Images]:
    """Split off `count` images as a second part, classes in proportion and each in both parts.

    Raises:
        UserError: a class too small to split.
    """
    from sklearn.model_selection import train_test_split  # takes two seconds to import

    counts = np.bincount(images.labels, minlength=len(classes))
    if counts.min() < 2:
        name, count = classes[int(counts.argmin())], int(counts.min())
        raise UserError(
            f"data.split or data.val_fraction: class {name} has {count} image{'s' * (count != 1)} to divide, "
            "at least two are needed: add some or remove the class"
        )

    try:
        first, second = train_test_split(
            np.arange(len(images)), test_size=count, random_state=seed % 2**32, stratify=images.labels
        )
    except ValueError as error:
        raise UserError(f"data.split or data.val_fraction does not fit these images: {error}") from None
    is_second = np.zeros(len(images), dtype=np.bool_)
    is_second[second] = True
    for part, other in ((first, second), (second, first)):
        for label in np.setdiff1d(images.labels, images.labels[part]):  # rounded down to none
            moved = other[images.labels[other] == label][0]
            is_second[moved] = not is_second[moved]
    return images.take(np.flatnonzero(~is_second)), images.take(np.flatnonzero(is_second))


def _load_digits(image_size: int) -> Decoded:
    """Load scikit-learn's 1,797 handwritten 8x8 digits as RGB, stratified 70/30."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    check_images_fit(len(bunch.images), image_size)
    gray = (bunch.images * (255 / 16)).round().astype(np.uint8)
    pixels = np.stack([to_array(Image.fromarray(image), image_size) for image in gray])
    classes = [str(digit) for digit in range(10)]
    labels = bunch.target.astype(np.int64)
    train, test = _split(Images(pixels, labels), DIGITS_TEST, DIGITS_SPLIT_SEED, classes)
    return train, test, classes


@dataclass(frozen=True)
class _Listing:
    """Images that a source has, not opened yet."""

    count: int  # of training and test images together
    stamp: str  # changes when the images do
    read: Callable[[], Undecoded]
    names: tuple[NDArray[np.str_] | None, NDArray[np.str_] | None] = (None, None)  # of training and test images


def _load_cached(data: Data, val_is_test: bool, dry_run: bool) -> Decoded:
    """Load images and class names from the cache, decoding them where there is none."""
    if data.source in FILES:
        found = _list_files(data, val_is_test)
    else:
        found = _list_stl10(data) if data.source == "stl10" else _list_cifar(data, download=not dry_run)
    folder = _choose_folder(data, found.stamp)
    if not folder.exists():
        check_writable(data.cache_dir)
        check_images_fit(found.count, data.image_size, data.cache_dir)
    in_memory = uses_memory(data.in_memory, found.count, data.image_size)
    lock = folder.with_name(f"{folder.name}.lock")
    cached = read_cache(folder, in_memory, keep=dry_run)
    if cached is None and dry_run:
        check_free_memory(found.count, data.image_size, ", or start without --dry-run, which writes a cache")
        cached = decode_into_memory(found.read())
    elif cached is None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with hold_lock(lock, wait=True):  # while another process decodes
            cached = read_cache(folder, in_memory)
            if cached is None:
                write_cache(folder, found.read())
                cached = read_cache(folder, in_memory)
    elif not dry_run:
        with suppress(UserError, MachineError):  # a cache that others own may be read-only
            remove_abandoned_folders(data.cache_dir)
            remove_abandoned_lock(lock)
    if cached is None:
        raise UserError(f"{folder}: decoded images read differently just after they were written, check the disk")
    train, test, classes = cached
    return replace(train, names=found.names[0]), replace(test, names=found.names[1]), classes


def _choose_folder(data: Data, stamp: str) -> Path:
    """Choose the cache folder of a source by the `stamp` of its files."""
    key = f"{data.source} {stamp} {data.image_size} {data.bit_depth} {data.resize} {VERSION}"
    return data.cache_dir / f"{data.source}-{compute_digest(key)}"


def _list_cifar(data: Data, download: bool) -> _Listing:
    """List CIFAR-10 or CIFAR-100, which torchvision downloads once."""
    from torchvision.datasets import CIFAR10, CIFAR100

    dataset = {"cifar10": CIFAR10, "cifar100": CIFAR100}[data.source]
    root = data.root or Path("data")

    def read() -> Undecoded:
        try:
            if download:
                root.mkdir(parents=True, exist_ok=True)
            parts = [dataset(str(root), train=train, download=download) for train in (True, False)]
        except (urllib.error.URLError, OSError, RuntimeError) as error:
            if not download:
                raise UserError(
                    f"{data.source} is not unpacked in {root} and --dry-run downloads nothing: start without it"
                ) from None
            with suppress(OSError):
                root.rmdir()  # which removes nothing but an empty folder
            what = f"{data.source} could not be downloaded to {root}"
            told = to_user_error(error, what) if isinstance(error, OSError) else None  # such as a full disk
            raise told or UserError(
                f"{what} ({error}): put torchvision's archive there, use data.source=folder with class folders, "
                "or data.source=digits, which needs no download"
            ) from None
        images = np.concatenate([part.data for part in parts])  # (N, H, W, 3)
        labels = np.concatenate([np.asarray(part.targets, dtype=np.int64) for part in parts])
        decode = partial(_resize_all, images, data.image_size)
        return Undecoded(labels, len(parts[0].data), list(parts[0].classes), data.image_size, decode)

    return _Listing(CIFAR_IMAGES, str(root.resolve()), read)


def _list_stl10(data: Data) -> _Listing:
    """List the labelled images of STL-10, as torchvision has downloaded it."""
    from torchvision.datasets import STL10

    root = data.root or Path("data")

    def read() -> Undecoded:
        try:
            parts = [STL10(str(root), split=split) for split in ("train", "test")]
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(
                f"stl10 cannot be read from {root} ({error}): unpack stl10_binary.tar.gz there, with all its files"
            ) from None
        images = np.concatenate([part.data for part in parts]).transpose(0, 2, 3, 1)  # (N, H, W, 3)
        labels = np.concatenate([np.asarray(part.labels, dtype=np.int64) for part in parts])
        classes = getattr(parts[0], "classes", [str(number) for number in range(1, 11)])
        decode = partial(_resize_all, images, data.image_size)
        return Undecoded(labels, len(parts[0].data), list(classes), data.image_size, decode)

    return _Listing(STL10_IMAGES, str(root.resolve()), read)


def _resize_all(images: NDArray[np.uint8], image_size: int, step: int = 1000) -> Iterator[Pixels]:
    for start in range(0, len(images), step):
        some = [to_array(Image.fromarray(image), image_size) for image in images[start : start + step]]
        yield np.stack(some)


def _list_files(data: Data, val_is_test: bool) -> _Listing:
    """List the images of class folders under data.root, or of the CSV that it is."""
    root = data.root or Path("data")
    if data.source == "csv":
        found = list_images(root, data.follow_links)
    else:
        found = find_images(root, data.follow_links, val_is_test)
    images = found.train + found.test

    def read() -> Undecoded:
        labels = np.searchsorted(found.classes, [image.label for image in images])
        paths = [image.path for image in images]
        decode = partial(decode_files, paths, data.image_size, data.bit_depth, data.resize)
        return Undecoded(labels, len(found.train), found.classes, data.image_size, decode)

    names = _list_names(found.train, found.root), _list_names(found.test, found.root)
    return _Listing(len(images), _compute_stamp(data, found), read, names)


def _compute_stamp(data: Data, found: ImageFiles) -> str:
    """Return a digest of names, sizes and times of change of all files."""
    images = found.train + found.test
    states: list[object] = [(str(image.path), (image.size, image.changed)) for image in images]
    if data.source == "csv":  # an edit of the list may change these alone
        states += [len(found.train), [image.label for image in images]]
    return compute_digest(str(states))


def _list_names(images: list[ImageFile], root: Path) -> NDArray[np.str_]:
    start = len(root.as_posix()) + 1 if root != Path() else 0
    return np.array([make_readable(image.path.as_posix()[start:]) for image in images], dtype=np.str_)
