"""Decoded images in a folder, memory-mapped when read again, with digests that tell a damaged file.

train_pixels.npy, train_labels.npy, test_pixels.npy, test_labels.npy    arrays (N, 3, S, S) and (N,)
meta.json                                                               class names, digest of each array
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset.identity import array_digest
from errors import warn
from files import in_one_line, new_folder


@dataclass(frozen=True)
class Images:
    """Some labelled images."""

    pixels: NDArray[np.uint8]  # (N, 3, S, S)
    labels: NDArray[np.int64]  # (N,)
    names: NDArray[np.str_] | None = None  # (N,) paths relative to data.root with /, of class folders only

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: NDArray[np.int64]) -> Images:
        """The images at `positions`, copied into memory."""
        names = None if self.names is None else self.names[positions]
        return Images(self.pixels[positions], self.labels[positions], names)


Decoded = tuple[Images, Images, list[str]]  # training and test images, class names
PARTS = ("train", "test")


def write_cache(folder: Path, train: Images, test: Images, classes: list[str]) -> None:
    """Write all files to a folder of their own, which then takes its name at once; the first of several stays.

    Raises:
        UserError, MachineError: as `files.in_one_line`.
    """
    size = sum(array.nbytes for images in (train, test) for array in (images.pixels, images.labels))
    with in_one_line(folder, lambda: size), new_folder(folder) as partial:
        digests = {}
        for name, images in zip(PARTS, (train, test), strict=True):
            for kind, array in (("pixels", images.pixels), ("labels", images.labels)):
                _save(partial / f"{name}_{kind}.npy", array)
                digests[f"{name}_{kind}"] = array_digest(array)
        meta = {"classes": classes, "digests": digests}
        (partial / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def _save(path: Path, array: NDArray[Any]) -> None:
    """What np.save writes, but an error says why: numpy's own names no cause."""
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(np.ascontiguousarray(array).data)


def read_cache(folder: Path) -> Decoded | None:
    """What `write_cache` wrote; None where there is nothing, or where it is damaged and removed with a word.

    Every byte is read once to compare digests.
    """
    if not folder.exists():
        return None
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        parts = []
        for name in PARTS:
            arrays = [np.load(folder / f"{name}_{kind}.npy", mmap_mode="c") for kind in ("pixels", "labels")]
            for kind, array in zip(("pixels", "labels"), arrays, strict=True):
                if array_digest(array) != meta["digests"][f"{name}_{kind}"]:
                    raise ValueError(f"{name}_{kind}.npy is not as it was written")
            parts.append(Images(*arrays))
        return parts[0], parts[1], list(meta["classes"])
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        warn(f"{folder} is damaged ({error}): decoded anew")
        with suppress(FileNotFoundError):  # another process removes it as well
            shutil.rmtree(folder)
        return None
