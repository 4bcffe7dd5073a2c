"""Decoded images in a folder, mapped into memory or read as batches need them, with digests that tell damage.

train_pixels.npy, train_labels.npy, test_pixels.npy, test_labels.npy    arrays (N, 3, S, S) and (N,)
meta.json                                                               class names, digests of them and each array
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tokenize
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset.files.stored_pixels import Pixels, PixelWriter, StoredPixels, Target
from dataset.identity import array_digest
from errors import UserError, warn
from files import in_one_line, new_folder


@dataclass(frozen=True)
class Images:
    """Some labelled images."""

    pixels: Pixels | StoredPixels  # (N, 3, S, S) in memory or in files
    labels: NDArray[np.int64]  # (N,)
    names: NDArray[np.str_] | None = None  # (N,) paths relative to data.root with /, of class folders only
    digest: str | None = None  # of the pixels, where it was computed as they were read

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: NDArray[np.int64]) -> Images:
        """The images at `positions`, copied where they are in memory."""
        names = None if self.names is None else self.names[positions]
        pixels = self.pixels.take(positions) if isinstance(self.pixels, StoredPixels) else self.pixels[positions]
        return Images(pixels, self.labels[positions], names)

    def joined(self, others: Images) -> Images:
        """These images, then the others, which are in memory or in files as these are."""
        pair = self.pixels, others.pixels
        pixels: Pixels | StoredPixels
        if isinstance(pair[0], StoredPixels) and isinstance(pair[1], StoredPixels):
            pixels = pair[0].joined(pair[1])
        else:
            pixels = np.concatenate([part[:] for part in pair])
        named = self.names is not None and others.names is not None
        return Images(
            pixels,
            np.concatenate([self.labels, others.labels]),
            np.concatenate([self.names, others.names]) if named else None,
        )


Decoded = tuple[Images, Images, list[str]]  # training and test images, class names
PARTS, KINDS = ("train", "test"), ("pixels", "labels")
# what numpy and json raise beside their own errors for bytes that are none of theirs
UNREADABLE = (EOFError, RecursionError, MemoryError, OverflowError, SyntaxError, tokenize.TokenError)


@dataclass(frozen=True)
class Undecoded:
    """Training and test images of which only the pixels are missing."""

    labels: tuple[NDArray[np.int64], NDArray[np.int64]]  # of the training and of the test images
    classes: list[str]
    image_size: int
    decode: Callable[[Target], object]  # writes all pixels, those of the training images first


def write_cache(folder: Path, images: Undecoded) -> None:
    """Write all files to a folder of their own, which then takes its name at once; the first of several stays.

    Raises:
        UserError, MachineError: as `files.in_one_line`; what decoding raises.
    """
    counts = [len(labels) for labels in images.labels]
    size = sum(counts) * (3 * images.image_size**2 + 8)
    with in_one_line(folder, lambda: size), new_folder(folder) as partial:
        paths = {f"{name}_{kind}": partial / f"{name}_{kind}.npy" for name in PARTS for kind in KINDS}
        pixels = [paths[f"{name}_pixels"] for name in PARTS]
        images.decode(PixelWriter(pixels, counts, images.image_size))
        for name, labels in zip(PARTS, images.labels, strict=True):
            _save(paths[f"{name}_labels"], labels)
        digests = {name: array_digest(_opened(path, in_memory=False)) for name, path in paths.items()}
        digests["classes"] = _digest_of(images.classes)
        meta = {"classes": images.classes, "digests": digests}
        (partial / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def _save(path: Path, array: NDArray[Any]) -> None:
    """What np.save writes, but an error says why: numpy's own names no cause."""
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(np.ascontiguousarray(array).data)


def read_cache(folder: Path, in_memory: bool = True) -> Decoded | None:
    """What `write_cache` wrote; None where there is nothing, or where it is damaged and removed with a word.

    Every byte is read once to compare digests.

    in_memory: whether pixels are mapped into memory; otherwise they are `StoredPixels`.
    """
    if not folder.exists():
        return None
    try:
        return _read(folder, in_memory)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, *UNREADABLE) as error:
        warn(f"{folder} is damaged ({error}): decoded anew")
        _remove(folder)
        return None


def _read(folder: Path, in_memory: bool) -> Decoded:
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
        pixels, labels = (_checked(folder / f"{name}_{kind}.npy", digests, in_memory) for kind in KINDS)
        parts.append(Images(pixels, labels, digest=digests[f"{name}_pixels"]))
    return parts[0], parts[1], classes


def _checked(path: Path, digests: dict[str, Any], in_memory: bool) -> Any:
    array = _opened(path, in_memory)
    if array_digest(array) != digests[path.stem]:
        raise ValueError(f"{path.name} is not as it was written")
    return array


def _opened(path: Path, in_memory: bool) -> NDArray[Any] | StoredPixels:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # numpy's, of headers that it did not write
        try:
            if not in_memory and path.stem.endswith("pixels"):
                return StoredPixels.of(path)
            array: NDArray[Any] = np.load(path, mmap_mode="c")
        except Warning as warning:
            raise ValueError(str(warning)) from None
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
