from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from pydantic import TypeAdapter

from dataset.identity import DataIdentity, PartIdentity, compute_array_digest, describe_differences

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 3, 4, 4), dtype=np.uint8)
LABELS = np.arange(9) % 3


def make_identity(classes="abc", pixels=PIXELS, labels=LABELS, train=6):
    parts = [slice(0, train), slice(train, train), slice(6, 9)]
    digests = [(compute_array_digest(pixels[part]), compute_array_digest(labels[part])) for part in parts]
    counts = (train, 0, 3)
    identities = [PartIdentity(count, *pair) for count, pair in zip(counts, digests, strict=True)]
    return DataIdentity(tuple(classes), *identities, decoder=2)


def flip_pixel(position):
    pixels = PIXELS.copy()
    pixels[position, 0, 0, 0] ^= 1
    return pixels


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"classes": "abd"}, ["classes changed: c gone, d new"]),
        ({"classes": "acb"}, ["the classes are in another order"]),
        ({"labels": LABELS[::-1]}, [f"labels of the {part} images changed" for part in ("train", "test")]),
        ({"pixels": flip_pixel(2)}, ["pixels (or the order) of the train images changed"]),
        ({"pixels": flip_pixel(7)}, ["pixels (or the order) of the test images changed"]),
        ({"train": 5}, ["6 train images became 5"]),
        ({}, []),
    ],
)
def test_each_change_is_described(options, words) -> None:
    other = make_identity(**options)
    assert describe_differences(make_identity(), other) == words
    assert (make_identity().digest == other.digest) == (not words)


def test_digests_of_earlier_runs_stay() -> None:
    identity = make_identity()
    assert (identity.digest, identity.test_digest) == ("b1084b9cae079964", "0d21c77464d5e843")


def test_test_images_have_a_digest_of_their_own() -> None:
    own = make_identity().test_digest
    assert own == make_identity(pixels=flip_pixel(2)).test_digest == make_identity(train=5).test_digest
    assert own not in (make_identity("abd").test_digest, make_identity(pixels=flip_pixel(7)).test_digest)


def test_another_decoder_is_named_with_changed_pixels() -> None:
    identity = make_identity()
    same, other = (replace(one, decoder=99) for one in (identity, make_identity(pixels=flip_pixel(7))))
    assert describe_differences(identity, same) == [] and same.digest == identity.digest
    assert describe_differences(identity, other)[1].startswith("images are decoded by version 99")


def test_it_survives_json() -> None:
    text = json.dumps(make_identity().to_json())
    assert TypeAdapter(DataIdentity).validate_json(text, strict=True) == make_identity()
