from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from dataset.views.augment import normalise
from models.inputs import INPUT_ADAPTER, InputFormat, add_input_adapter, round_to_float32
from models.layout import infer_layout
from models.taps import TappedModel
from models.zoo import build_model

DATA = InputFormat(16, round_to_float32([0.4, 0.5, 0.6]), round_to_float32([0.2, 0.3, 0.1]))
OWN = InputFormat(24, round_to_float32([0.485, 0.456, 0.406]), round_to_float32([0.229, 0.224, 0.225]))
PIXELS = torch.randint(0, 256, (4, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def make_images(form: InputFormat) -> torch.Tensor:
    return normalise(PIXELS, torch.tensor(form.mean), torch.tensor(form.std))


def test_adapted_network_sees_its_own_normalisation() -> None:
    plain, adapted = (build_model("resnet8", 4).eval() for _ in range(2))
    adapted.load_state_dict(plain.state_dict())
    own = InputFormat(16, OWN.mean, OWN.std)
    add_input_adapter(adapted, DATA, own)
    torch.testing.assert_close(adapted(make_images(DATA)), plain(make_images(own)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [24, 8])
def test_images_are_resized_without_aliasing(size: int) -> None:
    model = add_input_adapter(build_model("resnet8", 4), DATA, InputFormat(size, DATA.mean, DATA.std))
    images = make_images(DATA)
    wanted = F.interpolate(images.double(), [size, size], mode="bilinear", antialias=size < 16)
    adapted = model.get_submodule(INPUT_ADAPTER)(images)
    torch.testing.assert_close(adapted.double(), wanted, rtol=1e-4, atol=1e-5)


def test_same_format_changes_nothing() -> None:
    model = add_input_adapter(build_model("resnet8", 4), DATA, copy.deepcopy(DATA))
    assert not hasattr(model, INPUT_ADAPTER) and not model._forward_pre_hooks


def test_names_weights_and_taps_stay_in_copies_too() -> None:
    plain = build_model("resnet8", 4)
    model = add_input_adapter(build_model("resnet8", 4), DATA, OWN)
    assert list(model.state_dict()) == list(plain.state_dict())
    own, other = (infer_layout(copy.deepcopy(one), 16) for one in (model, plain))
    assert own.taps == other.taps and own.structure == other.structure
    shapes: list[torch.Size] = []
    twin = copy.deepcopy(model)
    twin.get_submodule("conv1").register_forward_pre_hook(lambda _, inputs: shapes.append(inputs[0].shape))
    assert TappedModel(twin, ["layer2.0", "fc:input"]).find_tap_shapes(16) == [(32,), (64,)]
    assert shapes == [torch.Size([1, 3, 24, 24])]


def test_adapter_is_part_of_an_exported_program() -> None:
    model = add_input_adapter(build_model("resnet8", 4), DATA, OWN).eval()
    images = make_images(DATA)
    program = torch.export.export(model, (images,))
    torch.testing.assert_close(program.module()(images), model(images))
