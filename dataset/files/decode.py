"""From an image file to uint8 RGB: orientation applied, alpha over white, bit depth scaled by its true range.

Letters: N images, S side in pixels, n some consecutive ones.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from PIL import Image, ImageOps

from dataset.files.stored_pixels import PIECE, Pixels, Target
from errors import UserError, warn

VERSION = 2  # part of every cache's key and every fingerprint: raise it when a pixel changes
DEPTHS = (8, 10, 12, 14, 16)  # bits that cameras and scanners use of the 16 which a file stores
WHITE = (255, 255, 255, 255)
Resize = Literal["squash", "crop"]
T = TypeVar("T")


@dataclass(frozen=True)
class _Seen:
    """What was in a file, and the brightest value where it was stored with 16 bits."""

    pixels: Pixels  # (3, S, S); black of 16-bit grey values, whose range all images decide
    grey: int | None = None  # 0..65535
    colour: int | None = None  # the upper byte, which is what Pillow keeps


def decode_files(
    paths: Sequence[Path],
    image_size: int,
    bit_depth: int | None = None,
    resize: Resize = "squash",
    into: Target | None = None,
) -> Any:
    """Images as RGB, resized to squares as `resize` says: (N, 3, S, S), a few of them in memory at a time.

    Grey values stored with 16 bits are scaled by the depth in use: `bit_depth`, or the smallest of 8, 10, 12, 14
    and 16 that holds the brightest value of all these images, which a warning names where it is not 16. They are
    therefore opened twice.

    Args:
        into: where the images go, an array in memory unless it is given.

    Returns:
        `into`, or that array.

    Raises:
        UserError: a file that cannot be read as an image, or whose range is not known.
    """
    target = np.empty((len(paths), 3, image_size, image_size), dtype=np.uint8) if into is None else into
    greys: dict[int, int] = {}  # brightest values of images with 16-bit grey values, by position
    colours: dict[int, int] = {}
    see = partial(_see, image_size=image_size, resize=resize)
    with _pool() as pool:
        for start, seen in _in_pieces(pool, see, paths, image_size):
            target[start : start + len(seen)] = np.stack([one.pixels for one in seen])
            greys |= {start + number: one.grey for number, one in enumerate(seen) if one.grey is not None}
            colours |= {start + number: one.colour for number, one in enumerate(seen) if one.colour is not None}
        _refuse_dark(colours, bit_depth, paths)
        deep, depth = list(greys), _depth_of(greys, bit_depth)
        again = partial(_decode, image_size=image_size, depth=depth, resize=resize)
        for start, found in _in_pieces(pool, again, [paths[position] for position in deep], image_size):
            for position, pixels in zip(deep[start:], found, strict=False):
                target[position : position + 1] = pixels[None]
    return target


@contextmanager
def _pool() -> Iterator[Executor]:
    """A thread for each processor: Pillow decodes and resizes without Python's lock."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with warnings.catch_warnings(), ThreadPoolExecutor(count) as pool:
        warnings.simplefilter("error", Image.DecompressionBombWarning)  # here, since it holds for all threads
        yield pool


def _in_pieces(
    pool: Executor, do: Callable[[Path], T], paths: Sequence[Path], image_size: int
) -> Iterator[tuple[int, list[T]]]:
    """The results of some consecutive files and the number of the first, so that few wait in memory."""
    step = max(1, PIECE // (3 * image_size**2))
    for start in range(0, len(paths), step):
        yield start, list(pool.map(do, paths[start : start + step]))


def _see(path: Path, image_size: int, resize: Resize) -> _Seen:
    image = _open(path)
    if image.mode.startswith("I;16"):
        return _Seen(np.zeros((3, image_size, image_size), dtype=np.uint8), grey=int(np.asarray(image).max()))
    colour = int(np.asarray(image).max()) if image.info.get("sixteen_bits") else None
    return _Seen(to_array(image, image_size, resize=resize), colour=colour)


def _decode(path: Path, image_size: int, depth: int, resize: Resize) -> Pixels:
    return to_array(_open(path), image_size, depth, resize)


def _refuse_dark(colours: dict[int, int], bit_depth: int | None, paths: Sequence[Path]) -> None:
    """Raise `UserError` for 16-bit colours whose upper bytes hold next to nothing."""
    brightest = max(colours.values(), default=0)
    if colours and brightest < 2**6 and not bit_depth == 16:
        raise UserError(
            f"{paths[min(colours)]}: 16-bit colours with {8 + brightest.bit_length()} bits in use, "
            "of which Pillow keeps the upper byte: save with 8 bits, or say data.bit_depth=16 if dark is right"
        )


def _depth_of(greys: dict[int, int], bit_depth: int | None) -> int:
    """The bits in use of 16-bit grey values, of which the brightest of each image are given."""
    brightest = max(greys.values(), default=0)
    depth = bit_depth or next(bits for bits in DEPTHS if brightest < 2**bits)
    if greys and brightest >= 2**depth:
        raise UserError(f"data.bit_depth {depth}: an image has the value {brightest}, which needs more bits")
    if greys and bit_depth is None and depth < 16:
        warn(f"16-bit images use {depth} bits at most: scaled by {2**depth - 1}; data.bit_depth says otherwise")
    return depth


def _open(path: Path) -> Image.Image:
    """An image in memory, upright; its info says `sixteen_bits` where Pillow has dropped half of them."""
    try:
        return _upright(path)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise UserError(
            f"{path} has more than {Image.MAX_IMAGE_PIXELS:,} pixels, as files have that are to fill the memory: "
            "make it smaller or remove it"
        ) from None
    except Exception as error:  # bytes that are no image make its readers fail in any way at all
        raise UserError(f"{path} cannot be read as an image ({error}): mend or remove it") from None


def _upright(path: Path) -> Image.Image:
    with Image.open(path) as image:
        dropped = any("16" in str(tile[3]) for tile in image.tile) and not image.mode.startswith("I")
        image.load()
        upright = ImageOps.exif_transpose(image)
        if upright.mode in ("I", "F"):
            raise ValueError(f"pixels of mode {image.mode} have no fixed range, save it with 8 or 16 bits")
        upright.info["sixteen_bits"] = dropped
        return upright


def to_array(image: Image.Image, image_size: int, depth: int = 16, resize: Resize = "squash") -> Pixels:
    """An upright image as RGB, resized to a square: (3, S, S).

    Args:
        depth: bits in use of 16-bit grey values; the brightest possible becomes 255.
        resize: squash to the square, or bring the short side to S and cut out the centre.
    """
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint32)
        image = Image.fromarray((values >> (depth - 8)).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image)
    image = image.convert("RGB")
    if image.size != (image_size, image_size):
        image = _cropped(image, image_size) if resize == "crop" else _resized(image, image_size, image_size)
    return np.asarray(image).transpose(2, 0, 1)


def _resized(image: Image.Image, width: int, height: int) -> Image.Image:
    return image.resize((width, height), Image.Resampling.BILINEAR)


def _cropped(image: Image.Image, side: int) -> Image.Image:
    """The centre of an image whose short side is brought to `side`, rounded as torchvision's transforms do."""
    short = min(image.size)
    width, height = (side * length // short for length in image.size)
    left, top = round((width - side) / 2), round((height - side) / 2)
    return _resized(image, width, height).crop((left, top, left + side, top + side))
