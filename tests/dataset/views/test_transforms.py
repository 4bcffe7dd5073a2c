from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from dataset.files.decoded_cache import Images
from dataset.loader import training_batches, view_batches
from dataset.prepare import TrainingData, prepare
from dataset.sources import Source
from dataset.views.transforms import NAMES, build_transforms, check_transforms
from errors import UserError
from settings.images import Data
from settings.reading import load_config


def data(augment: list, **settings) -> TrainingData:
    source = np.random.default_rng(0)
    part = Images(source.integers(0, 256, (24, 3, 16, 16)).astype(np.uint8), np.arange(24) % 3)
    given = Source(part, part.take(np.arange(0)), part, ["a", "b", "c"])
    return prepare(given, Data(image_size=16, augment=augment, **settings), torch.device("cpu"))


AUGMENT = [
    {"RandomResizedCrop": {"scale": [0.3, 1.0]}},
    {"RandAugment": {"magnitude": 7}},
    {"RandomErasing": {"p": 0.5}},
]


def test_an_image_of_a_view_is_the_same_in_any_batch_and_order() -> None:
    ours = data(AUGMENT)
    view = {
        int(i): image
        for indices, images in view_batches(ours, 2, 24)
        for i, image in zip(indices, images, strict=True)
    }
    state = torch.get_rng_state()
    for epoch in (0, 1):
        torch.manual_seed(epoch)
        for batch in training_batches(ours, 8, 5, epoch, 2):
            for index, image in zip(batch.indices.tolist(), batch.images, strict=True):
                assert torch.equal(image, view[index])
    torch.manual_seed(1)
    before = torch.get_rng_state()
    list(view_batches(ours, 2, 24))
    assert torch.equal(torch.get_rng_state(), before) and not torch.equal(state, before)
    other = torch.cat([images for _, images in view_batches(ours, 3, 24)])
    assert not torch.equal(other, torch.stack([view[i] for i in range(24)]))


def test_a_name_alone_has_no_options(tiny_config) -> None:
    assert load_config(tiny_config, ["data.augment=[RandAugment]"]).data.augment == [{"RandAugment": {}}]


def test_transforms_are_torchvisions_behind_the_crop() -> None:
    inverted = torch.cat(
        [images for _, images in view_batches(data([{"RandomSolarize": {"threshold": 0, "p": 1}}]), 1, 24)]
    )
    plain = torch.cat([images for _, images in view_batches(data([]), 1, 24)])
    mean, std = data([]).mean[:, None, None], data([]).std[:, None, None]
    torch.testing.assert_close(
        (inverted * std + mean) * 255, 255 - (plain * std + mean) * 255, rtol=1e-4, atol=1e-2
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_one_of_torchvision_and_keeps_size_and_kind(name: str) -> None:
    needed = {
        "RandomAffine": {"degrees": 10},
        "RandomRotation": {"degrees": 10},
        "GaussianBlur": {"kernel_size": 3},
    }
    needed |= {"RandomPosterize": {"bits": 4}, "RandomSolarize": {"threshold": 128}}
    needed |= {"RandomAdjustSharpness": {"sharpness_factor": 2}}
    named = [{name: needed.get(name, {})}]
    check_transforms(named, 16)
    (step,) = build_transforms(named, 16)
    assert isinstance(step, getattr(v2, name))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{RandAugmnt: {}}", "unknown transform 'RandAugmnt', did you mean 'RandAugment'"),
        ("{Resize: {size: 8}}", "unknown transform 'Resize'"),
        ("{RandAugment: {magnitud: 3}}", "RandAugment has no option 'magnitud', did you mean 'magnitude'"),
        ("{RandomResizedCrop: {size: 8}}", "RandomResizedCrop has no option 'size'"),
        ("{RandomErasing: {p: 3}}", "RandomErasing refuses {'p': 3}"),
        ("{RandomRotation: {}}", "RandomRotation refuses {}"),
        ("{RandomRotation: {degrees: 9, expand: true}}", "changes the size or kind"),
        ("{RandAugment: {}, ColorJitter: {}}", "data.augment.0: "),
    ],
)
def test_what_is_no_transform_is_refused(entry: str, message: str, tiny_config) -> None:
    with pytest.raises(UserError) as refusal:
        check_transforms(load_config(tiny_config, [f"data.augment=[{entry}]"]).data.augment, 16)
    assert message in str(refusal.value)
