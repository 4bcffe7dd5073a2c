from __future__ import annotations

import colorsys
import dataclasses
import json

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from diagnostics.robustness import DEGRADATIONS, LEVELS, SEVERITIES, Degraded, degrade, mean_corruption_error


def pictures(count: int, side: int = 32, seed: int = 0) -> Tensor:
    """Smooth coloured images with mid tones, as noise alone would hide what blur and JPEG do."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 6, 6, generator=generator) * 160 + 40
    smooth = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear", align_corners=True)
    return (smooth + 10 * torch.randn(smooth.shape, generator=generator)).clamp(0, 255).to(torch.uint8)


def distance(a: Tensor, b: Tensor) -> float:
    return (a.float() - b.float()).pow(2).mean().item()


def test_every_corruption_has_five_levels() -> None:
    assert DEGRADATIONS.keys() == LEVELS.keys()
    assert all(len(levels) == len(SEVERITIES) for levels in LEVELS.values())


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_the_damage_grows_with_severity(name: str) -> None:
    images = pictures(16)
    damage = [distance(degrade(images, name, severity), images) for severity in SEVERITIES]
    assert damage[0] > 0
    assert damage == sorted(damage)


@pytest.mark.parametrize("name", DEGRADATIONS)
@pytest.mark.parametrize("shape", [(5, 3, 32, 32), (3, 3, 8, 12)])
def test_an_image_is_corrupted_alike_in_any_batch_and_order(name: str, shape: tuple[int, ...]) -> None:
    images = pictures(shape[0], 32)[..., : shape[2], : shape[3]]
    whole = degrade(images, name, 3, seed=7)
    assert (whole.shape, whole.dtype) == (images.shape, torch.uint8)
    one_by_one = torch.cat([degrade(image[None], name, 3, seed=7) for image in images])
    assert torch.equal(whole, one_by_one)
    assert torch.equal(whole.flip(0), degrade(images.flip(0), name, 3, seed=7))


def test_noise_has_its_level_and_follows_seed_and_severity() -> None:
    grey = torch.full((1, 3, 128, 128), 128, dtype=torch.uint8)
    noise = (degrade(grey, "gaussian_noise", 5).float() - 128) / 255
    assert noise.std().item() == pytest.approx(0.10, rel=0.02)
    assert noise.mean().item() == pytest.approx(0, abs=2e-3)
    assert torch.equal(degrade(grey, "gaussian_noise", 5, 1), degrade(grey, "gaussian_noise", 5, 1))
    assert not torch.equal(degrade(grey, "gaussian_noise", 5, 1), degrade(grey, "gaussian_noise", 5, 2))
    lighter = (degrade(grey + 1, "gaussian_noise", 5).float() - 129) / 255  # another image, other noise
    assert abs((noise * lighter).mean().item()) < 5e-4


def test_blur_is_scipys_gaussian() -> None:
    image = pictures(1)
    expected = gaussian_filter(image[0].double().numpy(), (0, 1, 1), mode="mirror", truncate=4)
    assert np.abs(degrade(image, "gaussian_blur", 5)[0].numpy() - expected).max() <= 0.51


def test_contrast_by_hand() -> None:
    image = torch.tensor([[[0, 200]], [[0, 80]], [[7, 7]]], dtype=torch.uint8)[None]  # means 100, 40, 7
    assert degrade(image, "contrast", 1)[0].tolist() == [[[25, 175]], [[10, 70]], [[7, 7]]]  # 0.75 of the way


def test_brightness_is_the_value_of_hsv() -> None:
    image = pictures(1)
    image[0, :, 0, 0] = 0  # black has no hue
    image[0, :, 0, 1] = torch.tensor([250, 10, 0])  # saturates
    bright = degrade(image, "brightness", 4)
    for row, column in ((0, 0), (0, 1), (5, 9), (31, 31)):
        h, s, v = colorsys.rgb_to_hsv(*(image[0, :, row, column] / 255).tolist())
        expected = [255 * x for x in colorsys.hsv_to_rgb(h, s, min(v + 0.2, 1.0))]
        assert bright[0, :, row, column].tolist() == pytest.approx(expected, abs=0.51)


def test_pixelate_keeps_flat_images_and_makes_blocks() -> None:
    flat = torch.full((2, 3, 32, 32), 77, dtype=torch.uint8)
    assert torch.equal(degrade(flat, "pixelate", 5), flat)
    columns = degrade(pictures(1), "pixelate", 5)[0, 0].T
    assert len(torch.unique(columns, dim=0)) == 20  # int(32 x 0.65)


def test_an_empty_batch_stays_empty() -> None:
    assert degrade(pictures(2)[:0], "jpeg", 1).shape == (0, 3, 32, 32)


def test_images_are_degraded_once_for_all_networks_where_they_take_little_memory(monkeypatch) -> None:
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    degraded = Degraded(images)
    once = degraded.under("jpeg", 3)
    assert torch.equal(once, degrade(images, "jpeg", 3)) and degraded.under("jpeg", 3) is once
    assert not torch.equal(degraded.under("jpeg", 5), once)
    monkeypatch.setattr("diagnostics.robustness.KEPT_BYTES", images.nbytes * 30 - 1)
    large = Degraded(images)
    assert torch.equal(large.under("jpeg", 3), once) and not large.kept


def test_wrong_input_is_named() -> None:
    images = pictures(1)
    with pytest.raises(ValueError, match="choose one of gaussian_noise"):
        degrade(images, "snow", 1)
    with pytest.raises(ValueError, match="severity"):
        degrade(images, "jpeg", 6)
    with pytest.raises(ValueError, match="uint8"):
        degrade(images.float(), "jpeg", 1)


TEACHER = {"jpeg": [0.1, 0.1, 0.2, 0.2, 0.4], "contrast": [0.0, 0.1, 0.1, 0.1, 0.2]}
STUDENT = {"jpeg": [0.2, 0.2, 0.2, 0.4, 0.5], "contrast": [0.1, 0.1, 0.1, 0.1, 0.1]}


def test_mean_corruption_error_by_hand() -> None:
    result = mean_corruption_error(STUDENT, TEACHER)
    assert result.by_corruption == {"jpeg": pytest.approx(1.5), "contrast": pytest.approx(1.0)}
    assert result.mean == pytest.approx(1.25)
    assert mean_corruption_error(TEACHER, TEACHER).mean == 1.0


def test_no_ratio_to_a_reference_that_never_errs() -> None:
    result = mean_corruption_error(STUDENT, TEACHER | {"contrast": [0.0] * 5})
    assert result.mean is None
    assert result.by_corruption == {"jpeg": pytest.approx(1.5), "contrast": None}
    assert result.notes["mean"] == "The reference never errs under contrast."
    json.dumps(dataclasses.asdict(result), allow_nan=False)


@pytest.mark.parametrize(
    "errors", [{}, {"jpeg": [0.1] * 5}, STUDENT | {"jpeg": [0.1]}, STUDENT | {"jpeg": [2] * 5}]
)
def test_wrong_errors_are_named(errors: dict[str, list[float]]) -> None:
    with pytest.raises(ValueError, match="corruptions|error rates"):
        mean_corruption_error(errors, TEACHER)
