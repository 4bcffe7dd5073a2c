"""Identities of images: digests of pixels and labels, compared wherever a result made from them is used again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset.files.decode import VERSION
from dataset.files.stored_pixels import Pixels, StoredPixels, iter_pieces


def compute_digest(*parts: str | NDArray[Any] | StoredPixels) -> str:
    """Return the first 16 hex digits of the SHA-256 of some texts and values of arrays; about 1.5 GB a second."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            digest.update(part.encode())
        else:
            for piece in iter_pieces(part):
                digest.update(np.ascontiguousarray(piece).data)
    return digest.hexdigest()[:16]


def array_digest(array: NDArray[Any] | StoredPixels) -> str:
    """Return the digest of an array's shape, type and values, in memory or in a file."""
    return compute_digest(f"{array.shape} {array.dtype.str}", array)


@dataclass(frozen=True)
class PartIdentity:  # its name and those of its fields are part of every fingerprint
    """One part of the images, such as those to train on."""

    count: int
    pixels: str  # digest of the decoded pixels in their order
    labels: str  # digest of the class numbers in the same order


@dataclass(frozen=True)
class DataIdentity:
    """All images of a run after splitting, and the classes that labels stand for.

    The decoder's version explains a change of pixels and is not part of the digests.
    """

    classes: tuple[str, ...]
    train: PartIdentity
    val: PartIdentity
    test: PartIdentity
    decoder: int

    @property
    def digest(self) -> str:
        return compute_digest(repr((self.classes, self.train, self.val, self.test)))

    @property
    def of_test(self) -> str:
        """Digest of the test images and their classes: models that share it are compared image by image."""
        return compute_digest(repr((self.classes, self.test)))

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"classes": list(self.classes)}


def identify(classes: Sequence[str], train: PartIdentity, val: PartIdentity, test: PartIdentity) -> DataIdentity:
    """Return the identity of all images, decoded by this version."""
    return DataIdentity(tuple(classes), train, val, test, VERSION)


def identify_part(
    pixels: Pixels | StoredPixels, labels: NDArray[np.int64], digest: str | None = None
) -> PartIdentity:
    """Return the identity of pixels (N, 3, S, S), with their `digest` where it is known, and labels (N,)."""
    return PartIdentity(len(labels), digest or array_digest(pixels), array_digest(labels))


def differences(old: DataIdentity, new: DataIdentity) -> list[str]:
    """Describe each change from one identity to the other; empty where there is none."""
    if old.classes != new.classes:
        return [_describe_classes(old.classes, new.classes)]
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


def _describe_classes(old: Sequence[str], new: Sequence[str]) -> str:
    gone, added = [name for name in old if name not in new], [name for name in new if name not in old]
    if not gone and not added:
        return "the classes are in another order"
    return f"classes changed: {', '.join(gone[:3]) or 'none'} gone, {', '.join(added[:3]) or 'none'} new"
