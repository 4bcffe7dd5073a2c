"""Decoded images in a folder, memory-mapped when read again, with digests that tell a damaged file.

train_pixels.npy, train_labels.npy, test_pixels.npy, test_labels.npy    arrays (N, 3, S, S) and (N,)
meta.json                                                               class names, digests of them and each array
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tokenize
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset.identity import array_digest
from errors import UserError, warn
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
PARTS, KINDS = ("train", "test"), ("pixels", "labels")
# what numpy and json raise beside their own errors for bytes that are none of theirs
UNREADABLE = (EOFError, RecursionError, MemoryError, OverflowError, SyntaxError, tokenize.TokenError)


def write_cache(folder: Path, train: Images, test: Images, classes: list[str]) -> None:
    """Write all files to a folder of their own, which then takes its name at once; the first of several stays.

    Raises:
        UserError, MachineError: as `files.in_one_line`.
    """
    size = sum(array.nbytes for images in (train, test) for array in (images.pixels, images.labels))
    with in_one_line(folder, lambda: size), new_folder(folder) as partial:
        digests = {}
        for name, images in zip(PARTS, (train, test), strict=True):
            arrays: dict[str, NDArray[Any]] = {"pixels": images.pixels, "labels": images.labels}
            for kind, array in arrays.items():
                _save(partial / f"{name}_{kind}.npy", array)
                digests[f"{name}_{kind}"] = array_digest(array)
        digests["classes"] = _digest_of(classes)
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
        return _read(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, *UNREADABLE) as error:
        warn(f"{folder} is damaged ({error}): decoded anew")
        _remove(folder)
        return None


def _read(folder: Path) -> Decoded:
    strange = [path.name for path in folder.iterdir() if not path.is_file()]  # a pipe would be waited for
    if strange:
        raise ValueError(f"{strange[0]} is no file")
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    classes, digests = meta["classes"], dict(meta["digests"])
    written = digests.pop("classes", None)
    if digests.keys() != {f"{name}_{kind}" for name in PARTS for kind in KINDS}:
        raise ValueError("meta.json is not as it was written")
    # earlier versions kept no digest of the classes
    if not _are_names(classes) or (written is not None and written != _digest_of(classes)):
        raise ValueError("the classes in meta.json are not as they were written")
    parts = []
    for name in PARTS:
        arrays = [_load(folder / f"{name}_{kind}.npy", digests[f"{name}_{kind}"]) for kind in KINDS]
        parts.append(Images(*arrays))
    return parts[0], parts[1], classes


def _load(path: Path, digest: object) -> NDArray[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # numpy's, of headers that it did not write
        try:
            array: NDArray[Any] = np.load(path, mmap_mode="c")
        except Warning as warning:
            raise ValueError(str(warning)) from None
    if array_digest(array) != digest:
        raise ValueError(f"{path.name} is not as it was written")
    return array


def _digest_of(classes: list[str]) -> str:
    return hashlib.sha256(json.dumps(classes).encode()).hexdigest()[:16]


def _are_names(classes: object) -> bool:
    return isinstance(classes, list) and all(isinstance(name, str) for name in classes)


def _remove(folder: Path) -> None:
    """Make room for what is decoded anew, unless another process has done so."""
    try:
        with suppress(FileNotFoundError):
            if folder.is_dir() and not folder.is_symlink():
                shutil.rmtree(folder)
            else:
                folder.unlink()
    except OSError as error:
        raise UserError(f"{folder} cannot be removed ({error.strerror}): remove it by hand") from None
