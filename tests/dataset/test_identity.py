from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from pydantic import TypeAdapter

from dataset.identity import DataIdentity, differences, identify, part_identity

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 3, 4, 4), dtype=np.uint8)
LABELS = np.arange(9) % 3


def identity(
    classes: str = "abc", pixels: np.ndarray = PIXELS, labels: np.ndarray = LABELS, train: int = 6
) -> DataIdentity:
    parts = [part_identity(pixels[s], labels[s]) for s in (slice(0, train), slice(train, train), slice(6, 9))]
    return identify(list(classes), parts[0], parts[1], parts[2])


def changed(position: int) -> np.ndarray:
    pixels = PIXELS.copy()
    pixels[position, 0, 0, 0] ^= 1
    return pixels


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (identity("abd"), ["classes changed: c gone, d new"]),
        (identity("acb"), ["the classes are in another order"]),
        (
            identity(labels=LABELS[::-1]),
            ["labels of the train images changed", "labels of the test images changed"],
        ),
        (identity(pixels=changed(2)), ["pixels (or the order) of the train images changed"]),
        (identity(pixels=changed(7)), ["pixels (or the order) of the test images changed"]),
        (identity(train=5), ["6 train images became 5"]),
        (identity(), []),
    ],
)
def test_what_changed_is_said(other: DataIdentity, words: list[str]) -> None:
    assert differences(identity(), other) == words
    assert (identity().digest == other.digest) == (not words)


def test_test_images_are_told_apart_from_what_was_trained_on() -> None:
    assert identity().of_test == identity(pixels=changed(2)).of_test == identity(train=5).of_test
    assert identity().of_test not in (identity("abd").of_test, identity(pixels=changed(7)).of_test)


def test_another_decoder_is_named_only_where_it_changed_pixels() -> None:
    same, other = replace(identity(), decoder=99), replace(identity(pixels=changed(7)), decoder=99)
    assert differences(identity(), same) == [] and same.digest == identity().digest
    assert differences(identity(), other)[1].startswith("images are decoded by version 99")


def test_it_survives_json() -> None:
    assert TypeAdapter(DataIdentity).validate_json(json.dumps(identity().to_json()), strict=True) == identity()
