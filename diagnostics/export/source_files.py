"""The image files behind some test images, and the range of their values."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dataset.files.decode import DEPTHS
from dataset.sources import FILES, Source, load_source
from settings.images import Data


def files_of(data: Data, positions: Sequence[int]) -> tuple[Source, list[Path]] | None:
    """The source and the files of the test images at `positions`; None where images are no files of their own."""
    if data.source not in FILES or data.root is None:
        return None
    source = load_source(data)  # decoded before: read from the cache
    if source.test.names is None:
        return None
    files = [data.folder / str(source.test.names[position]) for position in positions]
    return (source, files) if all(file.is_file() for file in files) else None  # a name may not be UTF-8


def bit_depth_of(data: Data, source: Source, some: Sequence[Path]) -> int | None:
    """The bits in use of 16-bit grey files: the config's, or as the decoder finds them; None where there are none.

    some: files that are looked at first, so that a folder without such files is not read whole.
    """
    if data.bit_depth is not None or data.root is None or not any(_is_deep(file) for file in some):
        return data.bit_depth
    parts = (source.train, source.val, source.test)
    names = [str(name) for part in parts if part.names is not None for name in part.names]
    deep = [file for name in names if (file := data.folder / name).is_file() and _is_deep(file)]
    brightest = max(_brightest(file) for file in deep)
    return next(bits for bits in DEPTHS if brightest < 2**bits)


def _is_deep(file: Path) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of size: these files were decoded before
        with Image.open(file) as image:
            return image.mode.startswith("I;16")


def _brightest(file: Path) -> int:
    with Image.open(file) as image:
        return int(np.asarray(image).max())
