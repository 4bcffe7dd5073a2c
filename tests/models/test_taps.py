from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from errors import UserError
from models.heads import find_classifier
from models.taps import TappedModel, pool
from models.zoo import build_model

SIDE = 32
TAPS = ["layer2.0", "fc:input"]  # of resnet8


def make_images(seed: int = 0, side: int = SIDE) -> Tensor:
    return torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(seed))


def record_output(model: nn.Module, name: str, images: Tensor) -> Tensor:
    """Return a copy of a module's output as a hook sees it."""
    seen: list[Tensor] = []
    hook = model.get_submodule(name).register_forward_hook(lambda *of: seen.append(of[2].detach().clone()))
    with torch.no_grad():
        model(images)
    hook.remove()
    return seen[0]


def record_head_inputs(model: nn.Module, images: Tensor) -> Tensor:
    seen: list[Tensor] = []
    hook = find_classifier(model)[1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(images)
    hook.remove()
    return seen[0]


def build_resnet8(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_model("resnet8", 10)


@pytest.mark.parametrize(
    ("arch", "taps", "dims"),
    [
        ("resnet20", ["layer3.1", "fc:input"], [64, 64]),
        ("mobilenet_v3_small", ["features.10", "classifier.3:input"], [96, 1024]),
        ("vit_b_16", ["encoder.layers.encoder_layer_10", "heads.head:input"], [768, 768]),
    ],
)
def test_taps_are_pooled_outputs_and_head_inputs(arch: str, taps: list[str], dims: list[int]) -> None:
    model = build_model(arch, 10, image_size=SIDE).eval()
    tapped = TappedModel(model, taps)
    assert tapped.find_tap_shapes(SIDE) == [(dim,) for dim in dims]
    output = record_output(model, taps[0], make_images())
    with torch.no_grad():
        out = tapped(make_images())
        assert torch.equal(out.logits, model(make_images()))
        assert torch.equal(out.taps[0], output.mean(dim=(2, 3) if output.dim() == 4 else 1))  # a map, or tokens
        assert torch.equal(out.taps[1], record_head_inputs(model, make_images()))


def test_any_module_can_be_tapped_at_either_end() -> None:
    model = build_resnet8().eval()
    out = TappedModel(model, ["layer1.0.conv1", "layer1.0.conv1:input", "layer3"])(make_images())
    stem = model.bn1(model.conv1(make_images())).relu()
    assert torch.equal(out.taps[0], model.layer1[0].conv1(stem).mean(dim=(2, 3)))
    assert torch.equal(out.taps[1], stem.mean(dim=(2, 3)))


@pytest.mark.parametrize(
    ("arch", "tap"), [("vgg11", "features.0"), ("densenet121", "features.norm5"), ("resnet18", "layer4.1.bn1")]
)
@pytest.mark.parametrize("form", ["", ":map"])
def test_tap_keeps_values_that_change_in_place_later(arch: str, tap: str, form: str) -> None:
    model = build_model(arch, 10, stem="imagenet").eval()
    output = record_output(model, tap, make_images())
    features = TappedModel(model, [f"{tap}{form}"])(make_images()).taps[0]
    assert (output < 0).any()  # which the ReLU behind it removes
    assert torch.equal(features, output if form else output.mean(dim=(2, 3)))
    features.sum().backward()  # and gradients still pass


def test_features_without_space_are_copied_before_they_change() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(inplace=True), nn.Linear(5, 3))
    inputs = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    own = model[1](inputs.flatten(1))
    tapped = TappedModel(model, ["1", "3:input"])(inputs)
    assert torch.equal(tapped.taps[0], own) and (own < 0).any()
    assert torch.equal(tapped.taps[1], own.relu())


@pytest.mark.parametrize("training", [True, False])
def test_logits_and_batch_statistics_are_the_models(training: bool) -> None:
    model = build_resnet8().train(training)
    twin = copy.deepcopy(model)
    tapped = TappedModel(model, TAPS)
    tapped.find_tap_shapes(SIDE)
    assert (tapped.training, model.training) == (training, training)
    assert torch.equal(tapped(make_images()).logits, twin(make_images()))
    for name, value in twin.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)


def test_taps_may_name_one_tensor_twice() -> None:
    model = build_resnet8().eval()
    out = TappedModel(model, ["layer3", "layer3.0", "layer2", "layer3.0", "fc"])(make_images())
    for position in (0, 1, 3):
        torch.testing.assert_close(out.taps[position], record_head_inputs(model, make_images()))
    assert torch.equal(out.taps[4], out.logits)


class Attentive(nn.Module):
    """Self-attention over the pixels, whose module gives a pair and whose inner projection is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(3, 1, batch_first=True)
        self.fc = nn.Linear(3, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2).transpose(1, 2)
        return self.fc(self.attention(x, x, x)[0].mean(dim=1))


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.relu(), x


class First(nn.Module):
    def forward(self, both: tuple[Tensor, Tensor]) -> Tensor:
        return both[0]


def test_first_tensor_of_a_tuple_is_read() -> None:
    assert TappedModel(Attentive(), ["attention", "fc:input"]).find_tap_shapes(4) == [(3,), (3,)]
    block = nn.Sequential(nn.Conv2d(3, 4, 1), Doubled(), First(), nn.Flatten(), nn.Linear(4 * SIDE**2, 2))
    out = TappedModel(block, ["1", "2:input:map"])(make_images())
    assert torch.equal(out.taps[0], out.taps[1].mean(dim=(2, 3))) and (out.taps[0] >= 0).all()


@pytest.mark.parametrize(
    ("build", "tap", "message"),
    [
        (Attentive, "attention.out_proj", r"attention\.out_proj.*never run"),
        (Attentive, "attention:map", r"a loss needs maps, and a tap gave \(3, 16, 3\)"),
        (build_resnet8, "fc:input:map", r"a loss needs maps, and a tap gave \(3, 64\)"),
    ],
)
def test_taps_without_the_wanted_features_are_refused(build, tap: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        TappedModel(build(), [tap])(make_images(side=4))


def test_shapes_are_pooled_or_of_maps() -> None:
    tapped = TappedModel(build_resnet8(), ["layer2.0", "layer2.0:map", "layer2.0.conv1:input:map", "fc:input"])
    side = SIDE // 2
    assert tapped.find_tap_shapes(SIDE) == [(32,), (32, side, side), (16, SIDE, SIDE), (64,)]


@pytest.mark.parametrize(
    ("arch", "place"), [("resnet8", "layer2"), ("convnext_tiny", "features.3"), ("swin_t", "features.3")]
)
def test_maps_have_their_channels_first(arch: str, place: str) -> None:
    model = build_model(arch, 10, image_size=64).eval()
    output = record_output(model, place, make_images(side=64))
    with torch.no_grad():
        pooled, as_map = TappedModel(model, [place, f"{place}:map"])(make_images(side=64)).taps
    assert torch.equal(as_map, output.permute(0, 3, 1, 2) if arch == "swin_t" else output)
    torch.testing.assert_close(as_map.mean(dim=(2, 3)), pooled)


def test_pool_by_hand() -> None:
    values = torch.arange(8.0)
    assert pool(values.reshape(1, 2, 2, 2)).tolist() == [[1.5, 5.5]]  # map: mean over space
    assert pool(values.reshape(1, 4, 2)).tolist() == [[3.0, 4.0]]  # tokens: mean over tokens
    last = values.reshape(1, 2, 2, 2).repeat(1, 1, 1, 2)[..., :3]  # channels last: two equal sides come first
    assert pool(last).tolist() == [[3.0, 4.0, 3.0]]
    assert torch.equal(pool(last.permute(0, 3, 1, 2)), pool(last))
    assert torch.equal(pool(values.reshape(4, 2)), values.reshape(4, 2))
    with pytest.raises(UserError, match=r"shape \(8,\)"):
        pool(values)
