"""Networks under RepDistiller's names: its keys and shapes, and the logits that its classes give."""

from __future__ import annotations

import hashlib

import pytest
import torch
from torch import Tensor, nn

from errors import UserError
from models.networks import SMALL_NETWORKS
from models.zoo import build_model, count_parameters

# name -> parameters, digest of keys and shapes, first logit: of RepDistiller's own classes (commit b84f547) with
# 100 classes, weights by `fill_weights`, image by `make_image`, float64
EXPECTED = {
    "resnet8": (83_892, "b0d6b90b7f82", -0.06935072551),
    "resnet14": (181_108, "09b9f32bbe1f", -0.3991895365),
    "resnet20": (278_324, "d62528ebf095", -0.659189534),
    "resnet32": (472_756, "871c1b2d9e39", -2.181931451),
    "resnet44": (667_188, "e3f9bc0daaf5", -1.241977191),
    "resnet56": (861_620, "7d3a91d4a8b9", -6.953275741),
    "resnet110": (1_736_564, "471c41f07af2", 5017.509172),
    "resnet8x4": (1_233_540, "a04332a459ae", 0.0003046135494),
    "resnet32x4": (7_433_860, "24fbb1ea1d0f", -2.297209544),
    "ResNet18": (11_220_132, "7e9e75d71f67", -0.4389733492),
    "ResNet34": (21_328_292, "467380785089", -1.466900117),
    "ResNet50": (23_705_252, "d22cdf0e7420", -3.304684278),
    "wrn_16_1": (180_916, "413afade7e8f", 0.01332956032),
    "wrn_16_2": (703_284, "5994bb013d98", 0.1985990722),
    "wrn_40_1": (569_780, "c785d10f458c", 0.002389963015),
    "wrn_40_2": (2_255_156, "9a74d15007ba", 0.01587038562),
    "vgg8": (3_965_028, "fdc773ff3991", 0.696872983),
    "vgg11": (9_277_284, "0b9551ef3480", 0.8690271935),
    "vgg13": (9_462_180, "bf74037647da", 0.9539148989),
    "vgg16": (14_774_436, "a8f839524d33", 0.7437380449),
    "vgg19": (20_086_692, "d9c51211c54c", 0.8175787068),
    "MobileNetV2": (812_836, "68a2c5f51e5c", 0.1582119474),
    "ShuffleV1": (949_258, "a2ef493a832e", -2.204872822),
    "ShuffleV2": (1_355_528, "577996dd44e6", 0.1711087033),
}


def fill_weights(model: nn.Module) -> None:
    """Set every value of a network to a function of its position, at the scale of trained weights."""
    for index, (name, tensor) in enumerate(model.state_dict().items()):
        if tensor.dtype.is_floating_point:
            wave = torch.sin(0.37 * torch.arange(tensor.numel(), dtype=torch.float64) ** 1.1 + index)
            if tensor.dim() > 1:
                wave = wave * (2 / tensor[0].numel()) ** 0.5
            elif name.endswith(("weight", "running_var")):
                wave = 0.6 + 0.1 * wave
            else:
                wave = 0.1 * wave
            tensor.copy_(wave.reshape(tensor.shape))


def make_image() -> Tensor:
    return torch.sin(0.01 * torch.arange(3 * 32 * 32, dtype=torch.float64) ** 1.2).reshape(1, 3, 32, 32)


def digest_keys(model: nn.Module) -> str:
    keys = [f"{name} {tuple(tensor.shape)}" for name, tensor in model.state_dict().items()]
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()[:12]


@torch.no_grad()
def compute_logit(model: nn.Module) -> float:
    model = model.double().eval()
    fill_weights(model)
    return model(make_image())[0, 0].item()


@pytest.mark.parametrize("arch", EXPECTED)
def test_keys_shapes_and_logits_are_repdistillers(arch: str) -> None:
    parameters, digest, logit = EXPECTED[arch]
    model = build_model(arch, 100)
    assert count_parameters(model) == parameters
    assert digest_keys(model) == digest
    assert compute_logit(model) == pytest.approx(logit, rel=1e-6)


def test_every_name_is_checked() -> None:
    assert EXPECTED.keys() == SMALL_NETWORKS.keys()


@pytest.mark.parametrize("arch", ["resnet8x4", "ResNet18", "wrn_16_1", "vgg8", "MobileNetV2", "ShuffleV1"])
@pytest.mark.parametrize("side", [32, 64])
def test_other_image_sizes_go_through(arch: str, side: int) -> None:
    assert build_model(arch, 10).eval()(torch.zeros(2, 3, side, side)).shape == (2, 10)


def test_vgg_of_torchvision_has_the_imagenet_stem() -> None:
    assert hasattr(build_model("vgg11", 10), "block0")
    assert hasattr(build_model("vgg11", 10, stem="imagenet"), "features")
    with pytest.raises(UserError, match="stem: imagenet"):
        build_model("vgg11", 10, options={"dropout": 0.1})
