"""Arrays in .npz files, without pickled objects and without torch."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from errors import raise_read_failure
from files import ARCHIVE_ERRORS
from models.whole import find_damaged_entry

Array = NDArray[Any]
SMALL, MOST_EXPANSION = 10**8, 100  # bytes that any file may expand to, and factor beyond them


def pack_arrays(arrays: Mapping[str, Array]) -> memoryview:
    """Return a compressed .npz file in memory: a plain stream may not seek."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getbuffer()


@contextmanager
def open_arrays(path: Path) -> Iterator[Mapping[str, Array]]:
    """Yield the arrays of a .npz file, each read as it is asked for.

    Raises:
        ValueError: a damaged file; also for errors in the body that other contents cause. One line.
    """
    if path.is_file():  # reading a pipe would block
        _check_expansion(path)
    damaged = find_damaged_entry(path)
    if damaged is not None:
        raise ValueError(f"{path} is damaged ({damaged} is not as it was written)")
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            yield arrays
    except (KeyError, TypeError, AttributeError, MemoryError, RecursionError, *ARCHIVE_ERRORS) as error:
        raise_read_failure(path, error)
        raise ValueError(f"{path} is no file of predictions: {_format_error(error)}") from None


def _check_expansion(path: Path) -> None:
    """Raise ValueError for an archive that expands far more than arrays of a recording do."""
    try:
        with zipfile.ZipFile(path) as archive:
            expanded = sum(entry.file_size for entry in archive.infolist())
    except ARCHIVE_ERRORS:
        return  # no archive: the reader says so
    size = path.stat().st_size
    if expanded > SMALL + MOST_EXPANSION * size:
        raise ValueError(f"{path} is no file of predictions: its {size:,} bytes would expand to {expanded:,}")


def _format_error(error: Exception) -> str:
    if isinstance(error, ValidationError):
        problem = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
    return str(error)


def check_integers(name: str, array: Array, shape: tuple[int, ...], below: int | None = None) -> None:
    """Raise ValueError for another shape or type, or values not in 0..below - 1."""
    if array.shape != shape or array.dtype.kind not in "iu":
        raise ValueError(f"{name} is {array.shape} {array.dtype}, not {shape} of integers")
    if array.size and (array.min() < 0 or (below is not None and array.max() >= below)):
        raise ValueError(f"{name} holds what is outside 0 .. {(below or 2**63) - 1}")


def check_reals(name: str, array: Array, shape: tuple[int | None, ...], finite: bool = False) -> None:
    """Raise ValueError for another type or shape (None: 1 or more), or NaN."""
    fits = array.ndim == len(shape) and all(
        have >= 1 if want is None else have == want for have, want in zip(array.shape, shape, strict=True)
    )
    if not fits or array.dtype.kind != "f":
        raise ValueError(f"{name} is {array.shape} {array.dtype}, not {shape} of reals")
    if finite and not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinity")
