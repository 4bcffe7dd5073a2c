from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from dataset.corruptions import CORRUPTIONS, DEGRADATIONS, SEVERITIES, apply_corruption, apply_degradation

STEADY = {"brightness", "contrast", "jpeg", "pixelate", "saturate", "original"}
STEADY |= {f"{kind}_blur" for kind in ("gaussian", "defocus", "motion", "zoom")}


def make_pictures(count, side=32):
    """Return smooth coloured images, on which blur and JPEG show."""
    source = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 6, 6, generator=source) * 160 + 40
    smooth = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear", align_corners=True)
    return (smooth + 10 * torch.randn(smooth.shape, generator=source)).clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_planted_corruptions_are_moderate_and_follow_the_index(name) -> None:
    ramp = torch.linspace(30, 220, 32).to(torch.uint8).expand(3, 32, 32).clone()
    pixels = torch.stack([ramp] * 3)
    first, same, other = apply_corruption(name, pixels, torch.tensor([5, 5, 6]))
    assert torch.equal(first, same) and torch.equal(first, other) == (name in STEADY)
    correlation = np.corrcoef(first.float().flatten(), ramp.float().flatten())[0, 1]
    assert correlation > 0.7 and (name == "original") == torch.equal(first, ramp) or name == "saturate"


def test_planted_jpeg_keeps_what_its_steps_hold() -> None:
    flat = torch.full((1, 3, 11, 11), 128 + 6, dtype=torch.uint8)  # a DC of 48, one step of 16 x 3
    assert torch.equal(apply_corruption("jpeg", flat, torch.tensor([0])), flat)


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_damage_grows_with_severity(name) -> None:
    images = make_pictures(16)
    degraded = [apply_degradation(images, name, severity) for severity in SEVERITIES]
    damage = [(one.float() - images.float()).pow(2).mean().item() for one in degraded]
    assert damage[0] > 0 and damage == sorted(damage)


@pytest.mark.parametrize("name", DEGRADATIONS)
@pytest.mark.parametrize(("height", "width"), [(32, 32), (8, 12)])
def test_degraded_images_do_not_depend_on_the_batch(name, height, width) -> None:
    images = make_pictures(4)[:, :, :height, :width]
    whole = apply_degradation(images, name, 3, seed=7)
    assert (whole.shape, whole.dtype) == (images.shape, torch.uint8)
    for number, image in enumerate(images):
        assert torch.equal(apply_degradation(image[None], name, 3, seed=7)[0], whole[number])
    assert torch.equal(whole.flip(0), apply_degradation(images.flip(0), name, 3, seed=7))


def test_noise_has_its_level_and_follows_the_seed() -> None:
    grey = torch.full((1, 3, 128, 128), 128, dtype=torch.uint8)
    noise = (apply_degradation(grey, "gaussian_noise", 5).float() - 128) / 255
    assert noise.std().item() == pytest.approx(0.10, rel=0.02)
    assert noise.mean().item() == pytest.approx(0, abs=2e-3)
    assert torch.equal(
        apply_degradation(grey, "gaussian_noise", 5, 1), apply_degradation(grey, "gaussian_noise", 5, 1)
    )
    assert not torch.equal(
        apply_degradation(grey, "gaussian_noise", 5, 1), apply_degradation(grey, "gaussian_noise", 5, 2)
    )
    lighter = (apply_degradation(grey + 1, "gaussian_noise", 5).float() - 129) / 255  # another image, other noise
    assert abs((noise * lighter).mean().item()) < 5e-4


def test_blur_is_scipys_gaussian() -> None:
    image = make_pictures(1)
    expected = gaussian_filter(image[0].double().numpy(), (0, 1, 1), mode="mirror", truncate=4)
    assert np.abs(apply_degradation(image, "gaussian_blur", 5)[0].numpy() - expected).max() <= 0.51


def test_contrast_by_hand() -> None:
    image = torch.tensor([[[0, 200]], [[0, 80]], [[7, 7]]], dtype=torch.uint8)[None]  # means 100, 40, 7
    assert apply_degradation(image, "contrast", 1)[0].tolist() == [
        [[25, 175]],
        [[10, 70]],
        [[7, 7]],
    ]  # 0.75 of the way


def test_brightness_is_the_value_of_hsv() -> None:
    image = make_pictures(1)
    image[0, :, 0, 0] = 0  # black has no hue
    image[0, :, 0, 1] = torch.tensor([250, 10, 0])  # saturates
    bright = apply_degradation(image, "brightness", 4)
    for row, column in ((0, 0), (0, 1), (5, 9), (31, 31)):
        h, s, v = colorsys.rgb_to_hsv(*(image[0, :, row, column] / 255).tolist())
        expected = [255 * x for x in colorsys.hsv_to_rgb(h, s, min(v + 0.2, 1.0))]
        assert bright[0, :, row, column].tolist() == pytest.approx(expected, abs=0.51)


def test_pixelate_keeps_flat_images_and_makes_blocks() -> None:
    flat = torch.full((2, 3, 32, 32), 77, dtype=torch.uint8)
    assert torch.equal(apply_degradation(flat, "pixelate", 5), flat)
    columns = apply_degradation(make_pictures(1), "pixelate", 5)[0, 0].T
    assert len(torch.unique(columns, dim=0)) == 20  # int(32 x 0.65)
