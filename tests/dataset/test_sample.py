from __future__ import annotations

import numpy as np
import pytest
import torch

from configs.images import Data
from dataset.sample import RepeatedImages, sample
from dataset.sources import load_source
from errors import UserError

CPU = torch.device("cpu")


@pytest.fixture
def images(image_root, tmp_path):
    return lambda **other: Data(
        source="folder", root=image_root, image_size=16, crop=2, cache_dir=tmp_path / "cache", **other
    )


@pytest.mark.parametrize("options", [{}, {"val_fraction": 0.25}, {"split": 0.5, "val_fraction": 0.25}])
def test_a_sample_has_the_labels_of_the_whole(images, tmp_path, options):
    settings = images(**options)
    found = sample(settings, CPU)
    assert found is not None and not (tmp_path / "cache").exists()
    data, decoding = found
    source = load_source(settings)
    for ours, whole in ((data.train, source.train), (data.val, source.val), (data.test, source.test)):
        labels = np.zeros(0) if ours is None else ours.labels.numpy()
        assert labels.tolist() == whole.labels.tolist()
    assert (decoding.images, decoding.tried) == (96, 96) and decoding.seconds_an_image > 0
    assert (decoding.bytes, decoding.more_memory) == (96 * (3 * 16 * 16 + 8), 0)
    assert sample(settings, CPU) is None  # decoded by now


def test_few_images_stand_for_many(images):
    few = sample(images(), CPU)[0].train
    many = RepeatedImages(few, torch.arange(1000) % 4)
    assert len(many) == 1000 and many.side == 16
    there = torch.tensor([3, 3 + len(few.pixels), 999])
    raw = many.raw(there)
    assert torch.equal(raw[0], raw[1]) and torch.equal(raw[2], few.pixels[999 % len(few.pixels)])


def test_mistakes_are_those_of_loading(images, tmp_path):
    with pytest.raises(UserError, match="is no folder"):
        sample(images().model_copy(update={"root": tmp_path / "absent"}), CPU)
    with pytest.raises(UserError, match="unknown transform 'RandErasing'"):
        sample(images(augment=["RandErasing"]), CPU)
    assert sample(Data(), CPU) is None  # digits lie in no files
