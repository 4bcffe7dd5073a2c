"""Images that stand more than once: in two parts of the data, or under two labels.

Letters: N images.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dataset.files.decoded_cache import Images
from dataset.files.stored_pixels import iter_pieces


@dataclass(frozen=True)
class Repeats:
    """Numbers of images whose decoded pixels stand elsewhere too."""

    test: int = 0  # test images that are training or validation images too
    val: int = 0  # validation images that are training images too
    labels: int = 0  # images of all parts that have another label elsewhere

    def describe(self) -> str:
        """Return a sentence; empty where there are none."""
        parts = (
            (self.test, "test images that are training or validation images too"),
            (self.val, "validation images that are training images too"),
            (self.labels, "images under two labels"),
        )
        found = ", ".join(f"{count:,} {text}" for count, text in parts if count)
        return f"Equal pixels: {found}." if found else ""


def count_repeats(train: Images, val: Images, test: Images) -> Repeats:
    """Count images with equal pixels, by 64 bits of a digest of each."""
    trained, held_out, tested = (_digest_each(part) for part in (train, val, test))
    labels = np.concatenate([train.labels, val.labels, test.labels])
    _, group = np.unique(np.concatenate([trained, held_out, tested]), return_inverse=True)
    smallest, largest = np.full(group.max() + 1, labels.max()), np.zeros(group.max() + 1, dtype=labels.dtype)
    np.minimum.at(smallest, group, labels)
    np.maximum.at(largest, group, labels)
    return Repeats(
        int(np.isin(tested, np.concatenate([trained, held_out])).sum()),
        int(np.isin(held_out, trained).sum()),
        int((smallest < largest)[group].sum()),
    )


def _digest_each(images: Images) -> NDArray[np.uint64]:
    """Return a digest of the pixels of each image, (N,)."""
    digests = [
        hashlib.sha256(image.data).digest()[:8]
        for piece in iter_pieces(images.pixels)
        for image in np.ascontiguousarray(piece)
    ]
    return np.frombuffer(b"".join(digests), dtype=np.uint64)
