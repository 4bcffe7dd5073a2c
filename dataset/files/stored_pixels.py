"""Decoded pixels that stay in a file and are read as batches need them.

They are read and not mapped, since every page of a map that was touched counts as memory of the process.
Letters: N images, S side in pixels, n some of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from errors import MachineError, to_user_error

Pixels = NDArray[np.uint8]
Positions = NDArray[np.int64]
PIECE = 2**23  # bytes that are handled at once where all images are gone through


@dataclass(frozen=True, eq=False)
class StoredPixels:
    """Images (N, 3, S, S) uint8 at some positions of an `.npy` file."""

    path: Path
    offset: int  # bytes before the first image
    image_shape: tuple[int, ...]
    positions: Positions  # (N,)
    dtype = np.dtype(np.uint8)

    @classmethod
    def open(cls, path: Path) -> StoredPixels:
        """Return all images of a file.

        Raises:
            OSError, ValueError: there is no such file, or it is another kind.
        """
        mapped = np.load(path, mmap_mode="r")
        if mapped.dtype != np.uint8 or mapped.ndim != 4 or not mapped.flags.c_contiguous:
            raise ValueError(f"{path.name} holds no images")
        return cls(path, mapped.offset, mapped.shape[1:], np.arange(len(mapped)))

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.positions), *self.image_shape)

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, chosen: slice | Positions) -> Pixels:
        """Read the images (n, 3, S, S) at some places of this.

        Raises:
            MachineError: the disk fails, or the file has become shorter.
        """
        positions = self.positions[chosen]
        pixels = np.empty((len(positions), *self.image_shape), dtype=np.uint8)
        size = prod(self.image_shape)
        try:
            with open(self.path, "rb") as file:
                for image, position in zip(pixels, positions.tolist(), strict=True):
                    file.seek(self.offset + position * size)
                    if file.readinto(image.data) < size:
                        raise MachineError(f"{self.path} was cut while it was in use: run again, with --resume")
        except OSError as error:
            raise to_user_error(error, f"{self.path} cannot be read") or error from error
        return pixels

    def take(self, chosen: slice | Positions) -> StoredPixels:
        """Return some of these images, still in their file."""
        return replace(self, positions=self.positions[chosen])


def iter_pieces(array: NDArray[Any] | StoredPixels) -> Iterator[NDArray[Any]]:
    """Yield the rows of an array, or images of a file, `PIECE` bytes at a time."""
    step = max(1, PIECE // max(1, prod(array.shape[1:]) * array.dtype.itemsize))
    for start in range(0, len(array), step):
        yield array[start : start + step]
