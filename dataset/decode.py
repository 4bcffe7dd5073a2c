"""From an image file to uint8 RGB: orientation applied, alpha over white, bit depth scaled by its true range.

Letters: N images, S side in pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from errors import UserError, warn

VERSION = 2  # part of every cache's key and every fingerprint: raise it when a pixel changes
DEPTHS = (8, 10, 12, 14, 16)  # bits that cameras and scanners use of the 16 which a file stores
WHITE = (255, 255, 255, 255)
Pixels = NDArray[np.uint8]
Resize = Literal["squash", "crop"]


def decode_files(
    paths: Sequence[Path], image_size: int, bit_depth: int | None = None, resize: Resize = "squash"
) -> Pixels:
    """Images as RGB, resized to squares as `resize` says: (N, 3, S, S).

    Grey values stored with 16 bits are scaled by the depth in use: `bit_depth`, or the smallest of 8, 10, 12, 14
    and 16 that holds the brightest value of all these images, which a warning names where it is not 16.

    Raises:
        UserError: a file that cannot be read as an image, or whose range is not known.
    """
    pixels = np.empty((len(paths), 3, image_size, image_size), dtype=np.uint8)
    deep: list[int] = []  # positions of images with 16-bit grey values
    shallow_colours: list[int] = []  # of 16-bit colours, of which Pillow keeps the upper byte
    brightest = brightest_colour = 0
    for position, path in enumerate(paths):
        image = _open(path)
        if image.mode.startswith("I;16"):
            deep.append(position)
            brightest = max(brightest, int(np.asarray(image).max()))
        else:
            pixels[position] = to_array(image, image_size, resize=resize)
            if image.info.get("sixteen_bits"):
                shallow_colours.append(position)
                brightest_colour = max(brightest_colour, int(np.asarray(image).max()))
    if shallow_colours and brightest_colour < 2**6 and not bit_depth == 16:
        raise UserError(
            f"{paths[shallow_colours[0]]}: 16-bit colours with {8 + brightest_colour.bit_length()} bits in use, "
            "of which Pillow keeps the upper byte: save with 8 bits, or say data.bit_depth=16 if dark is right"
        )
    depth = bit_depth or next(bits for bits in DEPTHS if brightest < 2**bits)
    if deep and brightest >= 2**depth:
        raise UserError(f"data.bit_depth {depth}: an image has the value {brightest}, which needs more bits")
    if deep and bit_depth is None and depth < 16:
        warn(f"16-bit images use {depth} bits at most: scaled by {2**depth - 1}; data.bit_depth says otherwise")
    for position in deep:
        pixels[position] = to_array(_open(paths[position]), image_size, depth, resize)
    return pixels


def _open(path: Path) -> Image.Image:
    """An image in memory, upright; its info says `sixteen_bits` where Pillow has dropped half of them."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
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
