from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from errors import UserError
from models.heads import classifier
from models.layout import Layout, infer_layout
from models.taps import TappedModel, pool
from models.zoo import build_model

SIDE = 32
TAPS = ["layer2.0", "fc:input"]  # of resnet8


def images(seed: int = 0) -> Tensor:
    return torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def head_inputs(model: nn.Module, images: Tensor) -> Tensor:
    """What a hook sees enter the classifier."""
    seen: list[Tensor] = []
    handle = classifier(model)[1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(images)
    handle.remove()
    return seen[0]


def resnet8(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_model("resnet8", 10)


def default_taps(layout: Layout) -> list[str]:
    return [layout.place("penultimate"), layout.place("last")]


@pytest.mark.parametrize(
    ("arch", "taps", "dims"),
    [
        ("resnet8", ["layer2.0", "fc:input"], [32, 64]),
        ("resnet20", ["layer3.1", "fc:input"], [64, 64]),
        ("resnet18", ["layer4.0", "fc:input"], [512, 512]),
        ("mobilenet_v3_small", ["features.10", "classifier.3:input"], [96, 1024]),
        ("vit_b_16", ["encoder.layers.encoder_layer_10", "heads.head:input"], [768, 768]),
    ],
)
def test_default_taps_are_the_block_before_the_last_and_what_the_head_reads(
    arch: str, taps: list[str], dims: list[int]
) -> None:
    model = build_model(arch, 10, image_size=SIDE).eval()
    layout = infer_layout(copy.deepcopy(model), SIDE)
    assert default_taps(layout) == taps and layout.structure.blocks[-2] == taps[0]
    tapped = TappedModel(model, taps)
    assert tapped.tap_shapes(SIDE) == [(dim,) for dim in dims]
    seen: list[Tensor] = []
    hook = model.get_submodule(taps[0]).register_forward_hook(lambda *of: seen.append(of[2]))
    with torch.no_grad():
        logits = model(images())
        hook.remove()
        out, read = tapped(images()), head_inputs(model, images())
    assert torch.equal(out.logits, logits)
    space = (2, 3) if seen[0].dim() == 4 else 1  # a map, or tokens
    assert torch.equal(out.taps[0], seen[0].mean(dim=space))
    assert torch.equal(out.taps[1], read)


def test_any_module_can_be_tapped_at_either_end() -> None:
    model = resnet8().eval()
    tapped = TappedModel(model, ["layer1.0.conv1", "layer1.0.conv1:input", "layer3"])
    assert tapped.tap_shapes(SIDE) == [(16,), (16,), (64,)]
    stem = model.bn1(model.conv1(images())).relu()
    out = tapped(images())
    assert torch.equal(out.taps[0], model.layer1[0].conv1(stem).mean(dim=(2, 3)))
    assert torch.equal(out.taps[1], stem.mean(dim=(2, 3)))


@pytest.mark.parametrize(
    ("arch", "tap"), [("vgg11", "features.0"), ("densenet121", "features.norm5"), ("resnet18", "layer4.1.bn1")]
)
def test_a_tap_is_the_modules_own_output_not_what_an_in_place_operation_left_there(arch: str, tap: str) -> None:
    model = build_model(arch, 10, stem="imagenet").eval()
    seen: list[Tensor] = []
    hook = model.get_submodule(tap).register_forward_hook(lambda *of: seen.append(of[2].detach().clone()))
    out = TappedModel(model, [tap])(images())
    hook.remove()
    assert (seen[0] < 0).any()  # which the ReLU behind it removes
    assert torch.equal(out.taps[0], seen[0].mean(dim=(2, 3)))
    out.taps[0].sum().backward()  # and the change in place does not keep gradients from passing


def test_features_without_space_are_copied_before_they_change() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(inplace=True), nn.Linear(5, 3))
    inputs = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    own = model[1](inputs.flatten(1))
    tapped = TappedModel(model, ["1", "3:input"])(inputs)
    assert torch.equal(tapped.taps[0], own) and (own < 0).any()
    assert torch.equal(tapped.taps[1], own.relu())


@pytest.mark.parametrize("training", [True, False])
def test_logits_and_batch_statistics_are_the_models(training: bool) -> None:
    model = resnet8().train(training)
    twin = copy.deepcopy(model)
    tapped = TappedModel(model, TAPS)
    assert (tapped.training, model.training) == (training, training)
    assert torch.equal(tapped(images()).logits, twin(images()))
    for name, value in twin.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)


def test_dropout_follows_train_and_eval() -> None:
    model = build_model("mobilenet_v3_small", 10).eval()
    tapped = TappedModel(model, ["features.10", "classifier.3:input"]).train()
    model.requires_grad_(False)
    assert not torch.equal(tapped(images()).logits, tapped(images()).logits)
    tapped.eval()
    assert torch.equal(tapped(images()).logits, tapped(images()).logits)


def test_weights_are_shared() -> None:
    model = resnet8()
    tapped = TappedModel(model, TAPS)
    assert {id(parameter) for parameter in tapped.parameters()} == {id(p) for p in model.parameters()}
    before = model.fc.weight.clone()
    optimizer = torch.optim.SGD(tapped.parameters(), lr=0.1)
    tapped(images()).logits.square().sum().backward()
    optimizer.step()
    assert not torch.equal(model.fc.weight, before)
    assert torch.equal(tapped.eval()(images()).logits, model.eval()(images()))


def test_tap_shapes_leave_mode_and_statistics_alone() -> None:
    model = resnet8()
    tapped = TappedModel(model, TAPS).train()
    before = copy.deepcopy(model.state_dict())
    tapped.tap_shapes(SIDE)
    assert tapped.training and model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_unknown_taps_name_the_nearest() -> None:
    with pytest.raises(UserError, match=r"'layer3\.1'.*did you mean 'layer3\.0'"):
        TappedModel(resnet8(), ["layer2.0", "layer3.1"])


def test_taps_may_name_one_tensor_twice() -> None:
    model = resnet8().eval()
    out = TappedModel(model, ["layer3", "layer3.0", "layer2", "layer3.0", "fc"])(images())
    expected = head_inputs(model, images())
    for position in (0, 1, 3):
        torch.testing.assert_close(out.taps[position], expected)
    assert torch.equal(out.taps[4], out.logits)
    assert torch.equal(out.logits, model(images()))


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


def test_modules_without_features_of_their_own_are_refused() -> None:
    with pytest.raises(UserError, match=r"attention\.out_proj.*never run"):
        TappedModel(Attentive(), ["attention.out_proj", "fc"]).tap_shapes(4)


def test_first_tensor_of_a_tuple_is_read() -> None:
    assert TappedModel(Attentive(), ["attention", "fc:input"]).tap_shapes(4) == [(3,), (3,)]
    block = nn.Sequential(nn.Conv2d(3, 4, 1), Doubled(), First(), nn.Flatten(), nn.Linear(4 * SIDE**2, 2))
    out = TappedModel(block, ["1", "2:input:map"])(images())
    assert torch.equal(out.taps[0], out.taps[1].mean(dim=(2, 3))) and (out.taps[0] >= 0).all()


def test_shapes_are_those_of_one_image_pooled_or_not() -> None:
    tapped = TappedModel(resnet8(), ["layer2.0", "layer2.0:map", "layer2.0.conv1:input:map", "fc:input"])
    side = SIDE // 2
    assert tapped.tap_shapes(SIDE) == [(32,), (32, side, side), (16, SIDE, SIDE), (64,)]


@pytest.mark.parametrize("arch", ["resnet8", "convnext_tiny", "swin_t"])
def test_maps_have_their_channels_first(arch: str) -> None:
    model = build_model(arch, 10, image_size=64).eval()
    place = {"resnet8": "layer2", "convnext_tiny": "features.3", "swin_t": "features.3"}[arch]
    seen: list[Tensor] = []
    hook = model.get_submodule(place).register_forward_hook(lambda *of: seen.append(of[2]))
    with torch.no_grad():
        pooled, as_it_is = TappedModel(model, [place, f"{place}:map"])(torch.randn(2, 3, 64, 64)).taps
    hook.remove()
    channels = pooled.shape[1]
    assert as_it_is.shape[1] == channels and as_it_is.shape[2] == as_it_is.shape[3]
    given = seen[0].permute(0, 3, 1, 2) if arch == "swin_t" else seen[0]  # swin has its channels last
    assert torch.equal(as_it_is, given)
    torch.testing.assert_close(as_it_is.mean(dim=(2, 3)), pooled)


def test_a_map_stays_as_it_was_when_the_network_goes_on_in_place() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(4 * 30 * 30, 2))
    out = TappedModel(model, ["0:map"])(images())
    assert (out.taps[0] < 0).any()
    out.taps[0].sum().backward()


def test_what_is_no_map_is_refused() -> None:
    with pytest.raises(UserError, match=r"a loss needs maps, and a tap gave \(3, 64\)"):
        TappedModel(resnet8(), ["fc:input:map"])(images())
    with pytest.raises(UserError, match=r"a loss needs maps, and a tap gave \(3, 16, 3\)"):
        TappedModel(Attentive(), ["attention:map"])(images()[..., :4, :4])


def test_pool_by_hand() -> None:
    values = torch.arange(8.0)
    assert pool(values.reshape(1, 2, 2, 2)).tolist() == [[1.5, 5.5]]  # map: mean over space
    assert pool(values.reshape(1, 4, 2)).tolist() == [[3.0, 4.0]]  # tokens: mean over tokens
    last = values.reshape(1, 2, 2, 2).repeat(1, 1, 1, 2)[..., :3]  # channels last, told by the equal sides before
    assert pool(last).tolist() == [[3.0, 4.0, 3.0]]
    assert torch.equal(pool(last.permute(0, 3, 1, 2)), pool(last))
    assert torch.equal(pool(values.reshape(4, 2)), values.reshape(4, 2))
    with pytest.raises(UserError, match=r"shape \(8,\)"):
        pool(values)
