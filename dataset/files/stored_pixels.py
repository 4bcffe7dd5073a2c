"""Decoded pixels that stay in files: written piece by piece, and read at the positions that a batch asks for.

They are read and not mapped, since every page of a map that was touched counts as memory of the process. One
`.npy` file holds the images of a part, and several can be joined, so splitting and pooling moves positions alone.

Letters: N images, S side in pixels, n some of them.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from errors import MachineError, in_words

Pixels = NDArray[np.uint8]
Positions = NDArray[np.int64]
PIECE = 2**23  # bytes that are handled at once where all images are gone through


class Target(Protocol):
    """Where decoded images (N, 3, S, S) go, some consecutive ones at a time: an array, or `PixelWriter`."""

    def __setitem__(self, where: slice, pixels: Pixels, /) -> None: ...


class PixelFile:
    """An `.npy` file of images (N, 3, S, S) uint8, open to be read at any place, by forked processes too.

    Raises:
        OSError, ValueError: there is no such file, or it is another kind.
    """

    def __init__(self, path: Path) -> None:
        header = np.load(path, mmap_mode="r")
        if header.dtype != np.uint8 or header.ndim != 4 or not header.flags.c_contiguous:
            raise ValueError(f"{path.name} holds no images")
        self.path, self.shape, self.offset = path, header.shape, header.offset
        self.descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, self.descriptor)

    def __reduce__(self) -> tuple[type[PixelFile], tuple[Path]]:
        return PixelFile, (self.path,)

    def read(self, first: int, into: Pixels) -> None:
        """Fill `into` (n, 3, S, S) with the images from number `first` on.

        Raises:
            MachineError: the disk fails, or the file has become shorter.
        """
        place, rest = self.offset + first * prod(self.shape[1:]), into.reshape(-1).data
        while rest:
            try:
                count = _read_at(self.descriptor, rest, place)
            except OSError as error:
                raise in_words(error, f"{self.path} cannot be read") or error from error
            if count == 0:
                raise MachineError(f"{self.path} has become shorter while it was in use: run again, with --resume")
            place, rest = place + count, rest[count:]


def _read_at(descriptor: int, into: memoryview, place: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [into], place)
    os.lseek(descriptor, place, os.SEEK_SET)  # such a system forks no processes that would share the place
    found = os.read(descriptor, len(into))
    into[: len(found)] = found
    return len(found)


@dataclass(frozen=True, eq=False)
class StoredPixels:
    """Images (N, 3, S, S) uint8 at some positions of files; indexing reads them into memory."""

    files: tuple[PixelFile, ...]
    positions: Positions  # (N,) among the images of all files, one after another

    @classmethod
    def of(cls, path: Path) -> StoredPixels:
        """All images of a file.

        Raises:
            OSError, ValueError: as `PixelFile`.
        """
        file = PixelFile(path)
        return cls((file,), np.arange(file.shape[0]))

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.positions), *self.files[0].shape[1:])

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        return np.dtype(np.uint8)

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, chosen: slice | Positions) -> Pixels:
        """The images (n, 3, S, S) at some places of this, read; consecutive ones of a file at once."""
        positions = self.positions[chosen]
        pixels = np.empty((len(positions), *self.shape[1:]), dtype=np.uint8)
        starts = np.cumsum([0, *(file.shape[0] for file in self.files)])
        number = np.searchsorted(starts, positions, side="right") - 1  # (n,) of each one's file
        breaks = np.flatnonzero((np.diff(positions) != 1) | (np.diff(number) != 0)) + 1
        for first, last in zip([0, *breaks.tolist()], [*breaks.tolist(), len(positions)], strict=True):
            if first < last:
                file = int(number[first])
                self.files[file].read(int(positions[first] - starts[file]), pixels[first:last])
        return pixels

    def take(self, chosen: Positions) -> StoredPixels:
        """Some of these images, still in their files."""
        return StoredPixels(self.files, self.positions[chosen])

    def joined(self, others: StoredPixels) -> StoredPixels:
        """These images, then the others, which are as large."""
        before = sum(file.shape[0] for file in self.files)
        return StoredPixels(self.files + others.files, np.concatenate([self.positions, others.positions + before]))


def pieces(array: NDArray[Any] | StoredPixels) -> Iterator[NDArray[Any]]:
    """The rows of an array or the images of files, in order, about `PIECE` bytes at a time."""
    step = max(1, PIECE // max(1, prod(array.shape[1:]) * array.dtype.itemsize))
    for start in range(0, len(array), step):
        yield array[start : start + step]


class PixelWriter:
    """`.npy` files for images (N, 3, S, S) uint8, one after another, that are written in any order.

    Args:
        paths: of the files, which are made here.
        counts: images of each file.
    """

    def __init__(self, paths: Sequence[Path], counts: Sequence[int], image_size: int) -> None:
        self.paths, self.counts, self.bytes_each = paths, counts, 3 * image_size**2
        self.headers: list[int] = []  # bytes
        for path, count in zip(paths, counts, strict=True):
            kind = {"descr": "|u1", "fortran_order": False, "shape": (count, 3, image_size, image_size)}
            with open(path, "wb") as file:
                np.lib.format.write_array_header_1_0(file, kind)
                self.headers.append(file.tell())

    def __setitem__(self, where: slice, pixels: Pixels) -> None:
        """Write consecutive images, which may begin in one file and end in the next."""
        start = where.start
        for path, count, header in zip(self.paths, self.counts, self.headers, strict=True):
            some = pixels[max(0, -start) : max(0, count - start)]
            if len(some):
                with open(path, "r+b") as file:
                    file.seek(header + max(0, start) * self.bytes_each)
                    file.write(np.ascontiguousarray(some).data)
            start -= count
