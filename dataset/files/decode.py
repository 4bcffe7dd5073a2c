"""Decoding: upright, alpha over white, bit depth scaled by its true range.

Letters: N images, S side in pixels, n some consecutive ones.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from PIL import Image, ImageFile, ImageOps

from dataset.files.class_folders import FORMATS
from dataset.files.stored_pixels import PIECE, Pixels
from errors import UserError, raise_read_failure, warn

VERSION = 2  # part of every cache's key and every fingerprint: raise it when a pixel changes
DEPTHS = (8, 10, 12, 14, 16)  # bits that cameras and scanners use of the 16 which a file stores
JPEG_SUFFIXES = {".jpg", ".jpeg", ".jfif"}  # have 8 bits, so they are not opened twice
Resize = Literal["squash", "crop"]
T = TypeVar("T")


def decode_files(
    paths: Sequence[Path], image_size: int, bit_depth: int | None = None, resize: Resize = "squash"
) -> Iterator[Pixels]:
    """Yield images as uint8 RGB squares (n, 3, S, S) in order, 8 MB at a time.

    Grey values stored with 16 bits are scaled by `bit_depth`, or by the smallest of `DEPTHS` that holds the
    brightest value of all these images; a warning names it where it is not 16.

    Raises:
        UserError: a file that cannot be read as an image, or whose range is not known.
    """
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    step = max(1, PIECE // (3 * image_size**2))
    with warnings.catch_warnings(), ThreadPoolExecutor(processors) as pool:
        warnings.simplefilter("error", Image.DecompressionBombWarning)  # here, since it holds for all threads
        others = [path for path in paths if path.suffix.lower() not in JPEG_SUFFIXES]
        brightest = [value for values in _map_pieces(pool, _find_brightest, others, step) for value in values]
        depth = _choose_depth([value for value in brightest if value is not None], bit_depth)
        decode = partial(_decode, image_size=image_size, depth=depth, resize=resize)
        for images in _map_pieces(pool, decode, paths, step):
            yield np.stack(images)


def _map_pieces(pool: Executor, do: Callable[[Path], T], paths: Sequence[Path], step: int) -> Iterator[list[T]]:
    """Yield results `step` at a time, so that few of them wait in memory."""
    for start in range(0, len(paths), step):
        yield list(pool.map(do, paths[start : start + step]))


def _find_brightest(path: Path) -> int | None:
    """Return the brightest value of a grey image with 16 bits, None of others."""
    return _read(path, lambda image: int(np.asarray(image).max()) if image.mode.startswith("I;16") else None)


def _decode(path: Path, image_size: int, depth: int, resize: Resize) -> Pixels:
    return _read(path, partial(_to_upright_array, image_size=image_size, depth=depth, resize=resize))


def _read(path: Path, do: Callable[[ImageFile.ImageFile], T]) -> T:
    try:
        with Image.open(path, formats=FORMATS) as image:
            return do(image)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise UserError(
            f"{path} has more than {Image.MAX_IMAGE_PIXELS:,} pixels, which may fill the memory: make it smaller "
            "or remove it"
        ) from None
    except Exception as error:  # bytes that are no image make its readers fail in any way at all
        raise_read_failure(path, error)
        raise UserError(f"{path} cannot be read as an image ({error}): repair or remove it") from None


def _to_upright_array(image: ImageFile.ImageFile, image_size: int, depth: int, resize: Resize) -> Pixels:
    upright = ImageOps.exif_transpose(image)
    if upright.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode} have no fixed range, save it with 8 or 16 bits")
    if upright.mode.startswith("I;16") and Path(str(image.filename)).suffix.lower() in JPEG_SUFFIXES:
        raise ValueError(f"a 16-bit {image.format} with the suffix of a JPEG, rename it")
    return to_array(upright, image_size, depth, resize)


def _choose_depth(greys: Sequence[int], bit_depth: int | None) -> int:
    """Return the bits in use, given the brightest value of each 16-bit image."""
    brightest = max(greys, default=0)
    depth = bit_depth or next(bits for bits in DEPTHS if brightest < 2**bits)
    if greys and brightest >= 2**depth:
        raise UserError(f"data.bit_depth {depth}: an image has the value {brightest}, which needs more bits")
    if greys and bit_depth is None and depth < 16:
        warn(f"16-bit images use {depth} bits at most: scaled by {2**depth - 1}; data.bit_depth says otherwise")
    return depth


def to_array(image: Image.Image, image_size: int, depth: int = 16, resize: Resize = "squash") -> Pixels:
    """Return an upright image as RGB, resized to a square: (3, S, S).

    Args:
        depth: bits in use of 16-bit grey values; the brightest possible becomes 255.
        resize: squash to the square, or bring the short side to S and cut out the centre.
    """
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint32)
        image = Image.fromarray((values >> (depth - 8)).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    if image.size != (image_size, image_size):
        image = _crop(image, image_size) if resize == "crop" else _resize(image, image_size, image_size)
    return np.asarray(image).transpose(2, 0, 1)


def _resize(image: Image.Image, width: int, height: int) -> Image.Image:
    return image.resize((width, height), Image.Resampling.BILINEAR)


def _crop(image: Image.Image, side: int) -> Image.Image:
    """Cut the centre after resizing the short side, rounded as torchvision does.

    Raises:
        ValueError: a strip that would fill the memory.
    """
    short = min(image.size)
    width, height = (side * length // short for length in image.size)
    if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
        raise ValueError(f"resize: crop would make {width:,} x {height:,} pixels of this strip before it is cut")
    left, top = round((width - side) / 2), round((height - side) / 2)
    return _resize(image, width, height).crop((left, top, left + side, top + side))
