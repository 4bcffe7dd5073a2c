"""Decoded images in a folder, mapped or read, with digests that detect damage.

pixels.npy, labels.npy    arrays (N, 3, S, S) and (N,), training images before test images
meta.json                 class names, number of training images, digests of all
"""

from __future__ import annotations

import json
import shutil
import tokenize
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset.files.stored_pixels import Pixels, StoredPixels
from dataset.identity import compute_array_digest, compute_digest
from errors import UserError, raise_read_failure, warn
from files import create_folder, wrap_io_errors

# what numpy and json raise for bytes that are none of theirs
UNREADABLE = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError),
    *(EOFError, RecursionError, MemoryError, OverflowError, SyntaxError, tokenize.TokenError),
)


@dataclass(frozen=True)
class Images:
    """Some labelled images."""

    pixels: Pixels | StoredPixels  # (N, 3, S, S) in memory or in a file
    labels: NDArray[np.int64]  # (N,)
    names: NDArray[np.str_] | None = None  # (N,) paths relative to data.root with /, where images are files
    digest: str | None = None  # of the pixels, where it was computed as they were read

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: slice | NDArray[np.int64]) -> Images:
        """Return the images at `positions`, copied where they are in memory."""
        names = None if self.names is None else self.names[positions]
        pixels = self.pixels.take(positions) if isinstance(self.pixels, StoredPixels) else self.pixels[positions]
        return Images(pixels, self.labels[positions], names)


def join_images(first: Images, second: Images) -> Images:
    """Return some images, then others, both in memory or both in the same file."""
    pixels: Pixels | StoredPixels
    if isinstance(first.pixels, StoredPixels) and isinstance(second.pixels, StoredPixels):
        positions = np.concatenate([first.pixels.positions, second.pixels.positions])
        pixels = replace(first.pixels, positions=positions)
    else:
        pixels = np.concatenate([first.pixels[:], second.pixels[:]])
    named = first.names is not None and second.names is not None
    names = np.concatenate([first.names, second.names]) if named else None
    return Images(pixels, np.concatenate([first.labels, second.labels]), names)


Decoded = tuple[Images, Images, list[str]]  # training and test images, class names


@dataclass(frozen=True)
class Undecoded:
    """Training images followed by test images, of which only the pixels are missing."""

    labels: NDArray[np.int64]  # (N,)
    train_count: int
    classes: list[str]
    image_size: int
    decode: Callable[[], Iterator[Pixels]]  # yields all pixels in order, some images at a time


def write_cache(folder: Path, images: Undecoded) -> None:
    """Decode into a temporary folder, which then takes its name.

    Raises:
        UserError, MachineError: as `files.wrap_io_errors`; what decoding raises.
    """
    shape = len(images.labels), 3, images.image_size, images.image_size
    size = len(images.labels) * (3 * images.image_size**2 + 8)
    with wrap_io_errors(folder, lambda: size), create_folder(folder) as partial:
        _write_array(partial / "pixels.npy", shape, "|u1", images.decode())
        _write_array(partial / "labels.npy", shape[:1], "<i8", [images.labels.astype("<i8")])
        digests = _compute_digests(*_open_parts(partial, images.train_count, False), images.classes)
        meta = {"classes": images.classes, "train_count": images.train_count, "digests": digests}
        (partial / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def decode_into_memory(images: Undecoded) -> Decoded:
    """Decode and write nothing."""
    pixels = np.empty((len(images.labels), 3, images.image_size, images.image_size), dtype=np.uint8)
    start = 0
    for piece in images.decode():
        pixels[start : start + len(piece)] = piece
        start += len(piece)
    found = Images(pixels, images.labels.astype(np.int64))
    return found.take(slice(images.train_count)), found.take(slice(images.train_count, None)), images.classes


def _write_array(path: Path, shape: tuple[int, ...], kind: str, pieces: Iterable[NDArray[Any]]) -> None:
    """Write an `.npy` file piece by piece; unlike np.save, errors name their cause."""
    with open(path, "wb") as file:
        header = {"descr": kind, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for piece in pieces:
            file.write(np.ascontiguousarray(piece).data)


def read_cache(folder: Path, in_memory: bool = True, keep: bool = False) -> Decoded | None:
    """Read a cache; None where there is none or, with a warning, a damaged one.

    Every byte is read once to compare digests. A damaged folder is removed.

    Args:
        folder: of the cache.
        in_memory: whether pixels are mapped into memory; otherwise they are `StoredPixels`.
        keep: whether a damaged folder stays.

    Raises:
        MachineError: the system cannot read it; nothing is removed.
    """
    if not folder.exists():
        return None
    try:
        return _read(folder, in_memory)
    except UNREADABLE as error:
        raise_read_failure(folder, error)
        warn(f"{folder} is damaged ({error}): its images are decoded again")
        if not keep:
            _remove(folder)
        return None


def _read(folder: Path, in_memory: bool) -> Decoded:
    for path in folder.iterdir():
        if not path.is_file():  # reading a pipe would wait forever
            raise ValueError(f"{path.name} is no file")
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    train, test = _open_parts(folder, meta["train_count"], in_memory)
    digests = _compute_digests(train, test, meta["classes"])
    for name, digest in digests.items():
        if digest != meta["digests"][name]:
            raise ValueError(f"{name} changed since it was written")
    train, test = replace(train, digest=digests["train_pixels"]), replace(test, digest=digests["test_pixels"])
    return train, test, meta["classes"]


def _compute_digests(train: Images, test: Images, classes: list[str]) -> dict[str, str]:
    return {
        "train_pixels": compute_array_digest(train.pixels),
        "train_labels": compute_array_digest(train.labels),
        "test_pixels": compute_array_digest(test.pixels),
        "test_labels": compute_array_digest(test.labels),
        "classes": compute_digest(json.dumps(classes)),
    }


def _open_parts(folder: Path, train_count: int, in_memory: bool) -> tuple[Images, Images]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # numpy's, of headers that it did not write
        try:
            path = folder / "pixels.npy"
            pixels = np.load(path, mmap_mode="c") if in_memory else StoredPixels.open(path)
            images = Images(pixels, np.load(folder / "labels.npy"))
        except Warning as warning:
            raise ValueError(str(warning)) from None
    return images.take(slice(train_count)), images.take(slice(train_count, None))


def _remove(folder: Path) -> None:
    """Make room for what is decoded again, unless another process has done so."""
    try:
        with suppress(FileNotFoundError):
            shutil.rmtree(folder)
    except OSError as error:
        raise UserError(f"{folder} cannot be removed ({error.strerror}): remove it by hand") from None
