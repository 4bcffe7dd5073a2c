from __future__ import annotations

import pytest
import torch
from torchvision.transforms import v2

from dataset.loader import iter_training_batches, iter_view_batches
from dataset.views.transforms import NAMES, build_transforms, check_transforms
from errors import UserError
from settings.reading import load_config
from tests.dataset.small_data import make_data

AUGMENT = [
    {"RandomResizedCrop": {"scale": [0.3, 1.0]}},
    {"RandAugment": {"magnitude": 7}},
    {"RandomErasing": {"p": 0.5}},
]
NEEDED = {
    "RandomAffine": {"degrees": 10},
    "RandomRotation": {"degrees": 10},
    "GaussianBlur": {"kernel_size": 3},
    "RandomPosterize": {"bits": 4},
    "RandomSolarize": {"threshold": 128},
    "RandomAdjustSharpness": {"sharpness_factor": 2},
}


def load_view(data, view):
    return torch.cat([images for _, images in iter_view_batches(data, view, 24)])


def test_an_image_is_the_same_in_any_batch() -> None:
    data = make_data(24, side=16, augment=AUGMENT)
    view = load_view(data, 2)
    for epoch in (0, 1):
        torch.manual_seed(epoch)
        for batch in iter_training_batches(data, 8, 5, epoch, 2):
            assert torch.equal(batch.images, view[batch.indices])
    state = torch.get_rng_state()
    assert not torch.equal(load_view(data, 3), view)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_name_alone_has_no_options(tiny_config) -> None:
    assert load_config(tiny_config, ["data.augment=[RandAugment]"]).data.augment == [{"RandAugment": {}}]


def test_transforms_follow_the_crop() -> None:
    plain, inverted = (
        make_data(24, side=16, augment=augment) for augment in ([], [{"RandomSolarize": {"threshold": 0, "p": 1}}])
    )
    std, mean = plain.std[:, None, None], plain.mean[:, None, None]
    first, second = ((load_view(data, 1) * std + mean) * 255 for data in (plain, inverted))
    torch.testing.assert_close(second, 255 - first, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_one_of_torchvision(name) -> None:
    named = [{name: NEEDED.get(name, {})}]
    check_transforms(named, 16)
    (step,) = build_transforms(named, 16)
    assert isinstance(step, getattr(v2, name))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{RandAugmnt: {}}", "unknown transform 'RandAugmnt', did you mean 'RandAugment'"),
        ("{Resize: {size: 8}}", "unknown transform 'Resize'"),
        ("{RandAugment: {magnitud: 3}}", "unexpected keyword argument 'magnitud'"),
        ("{RandomResizedCrop: {size: 8}}", "RandomResizedCrop refuses {'size': 8}"),
        ("{RandomErasing: {p: 3}}", "RandomErasing refuses {'p': 3}"),
        ("{RandomRotation: {}}", "RandomRotation refuses {}"),
        ("{RandomRotation: {degrees: 9, expand: true}}", "changes the size or kind"),
        ("{RandAugment: {}, ColorJitter: {}}", "data.augment.0: "),
    ],
)
def test_unknown_transforms_and_options_are_refused(entry, message, tiny_config) -> None:
    with pytest.raises(UserError) as refusal:
        check_transforms(load_config(tiny_config, [f"data.augment=[{entry}]"]).data.augment, 16)
    assert message in str(refusal.value)
