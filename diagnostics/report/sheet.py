"""The images of the page's sheets as text that a page can hold.

Letters: S side in pixels.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:  # a study has thumbnails too, and no such recording
    from diagnostics.evaluation.recording import Recording

SMALL = 64  # pixels of a side up to which an image is enlarged with its pixels to be seen


@dataclass(frozen=True)
class Thumbnail:
    """A PNG in base64, and the side of its image."""

    data: str
    side: int

    @property
    def small(self) -> bool:
        return self.side <= SMALL


def make_thumbnail(pixels: NDArray[np.uint8]) -> Thumbnail:
    """Return an image (3, S, S) as a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(buffer, format="PNG")
    return Thumbnail(base64.b64encode(buffer.getvalue()).decode(), pixels.shape[-1])


def make_thumbnails(recording: Recording) -> dict[int, Thumbnail]:
    """Return the images that were kept of a recording, by their position in the test set."""
    shown = recording.shown
    return {place: make_thumbnail(one) for place, one in zip(shown.indices.tolist(), shown.pixels, strict=True)}
