"""What images a result was made from: digests of pixels and labels, compared wherever the result is used again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset.files.decode import VERSION
from dataset.files.stored_pixels import Pixels, StoredPixels, pieces


@dataclass(frozen=True)
class PartIdentity:
    """One part of the images, such as those to train on."""

    count: int
    pixels: str  # digest of the decoded pixels in their order
    labels: str  # digest of the class numbers in the same order


@dataclass(frozen=True)
class DataIdentity:
    """All images of a run after splitting, the classes that labels stand for, and what decoded them.

    The decoder explains a change of pixels and is none itself.
    """

    classes: tuple[str, ...]
    train: PartIdentity
    val: PartIdentity
    test: PartIdentity
    decoder: int

    @property
    def digest(self) -> str:
        return _hex(repr((self.classes, self.train, self.val, self.test)).encode())

    @property
    def of_test(self) -> str:
        """Of the test images and their classes alone: models with the same one can be compared image by image."""
        return _hex(repr((self.classes, self.test)).encode())

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"classes": list(self.classes)}


def identify(classes: Sequence[str], train: PartIdentity, val: PartIdentity, test: PartIdentity) -> DataIdentity:
    return DataIdentity(tuple(classes), train, val, test, VERSION)


def part_identity(
    pixels: Pixels | StoredPixels, labels: NDArray[np.int64], digest: str | None = None
) -> PartIdentity:
    """The identity of pixels (N, 3, S, S) and labels (N,).

    digest: of the pixels, where it has been computed before.
    """
    return PartIdentity(len(labels), digest or array_digest(pixels), array_digest(labels))


def array_digest(array: NDArray[Any] | StoredPixels) -> str:
    """SHA-256 of an array's shape and values, in memory or in files, the first 16 hex digits; about 1.5 GB a
    second."""
    digest = hashlib.sha256(f"{array.shape} {array.dtype.str}".encode())
    for piece in pieces(array):
        digest.update(np.ascontiguousarray(piece).data)
    return digest.hexdigest()[:16]


def differences(old: DataIdentity, new: DataIdentity) -> list[str]:
    """What changed from one identity to the other, in words; empty where nothing did."""
    if old.classes != new.classes:
        return [_classes_changed(old.classes, new.classes)]
    found = []
    for name in ("train", "val", "test"):
        before: PartIdentity = getattr(old, name)
        after: PartIdentity = getattr(new, name)
        if before.count != after.count:
            found.append(f"{before.count:,} {name} images became {after.count:,}")
        elif before.labels != after.labels:
            found.append(f"labels of the {name} images changed")
        elif before.pixels != after.pixels:
            found.append(f"pixels (or the order) of the {name} images changed")
    if found and old.decoder != new.decoder:
        found.append(f"images are decoded by version {new.decoder}, then {old.decoder}")
    return found


def _classes_changed(old: Sequence[str], new: Sequence[str]) -> str:
    gone, come = [name for name in old if name not in new], [name for name in new if name not in old]
    if not gone and not come:
        return "the classes are in another order"
    return f"classes changed: {', '.join(gone[:3]) or 'none'} gone, {', '.join(come[:3]) or 'none'} new"


def _hex(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:16]
