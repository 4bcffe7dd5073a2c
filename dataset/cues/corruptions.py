"""Corruptions as planted cues: those of Corrupted CIFAR-10 (Nam et al., "Learning from Failure", NeurIPS 2020).

Our own simple forms of the corruptions of Hendrycks and Dietterich (ICLR 2019), at one moderate strength and for
any side. What is random in them is cut from fixed fields at a place that depends on the image's index alone, so
that an image gets the same in every batch and epoch. Sums run over whole numbers or in a fixed order for the same
reason.

Letters: B batch, S side in pixels; pixels are float32 (B, 3, S, S) in 0..255, indices (B,).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from dataset.views.augment import generator

PLACES = 257  # fields are cut at PLACES x PLACES offsets; a prime, so that images walk through all of them
LUMA = (0.299, 0.587, 0.114)
JPEG_STEPS = 3.0  # times the standard's luminance steps: a quality of about 17
STEPS = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)  # ITU-T T.81, annex K, table K.1


@lru_cache(maxsize=8)
def _field(side: int, cell: int, device: torch.device) -> Tensor:
    """Normal noise (3, S + PLACES - 1, S + PLACES - 1) of deviation 1, smooth over `cell` pixels."""
    size = side + PLACES - 1
    coarse = torch.randn(1, 3, size // cell + 2, size // cell + 2, generator=generator(0, cell))
    field = F.interpolate(coarse, scale_factor=cell, mode="bicubic")[0, :, :size, :size] if cell > 1 else coarse[0]
    return (field[:, :size, :size] / field.std()).to(device)


def _noise(pixels: Tensor, indices: Tensor, smooth: bool = False) -> Tensor:
    """Each image's own piece of a field: (B, 3, S, S), white or smooth over a quarter of the side."""
    side = pixels.shape[-1]
    windows = _field(side, max(2, side // 4) if smooth else 1, pixels.device).unfold(1, side, 1).unfold(2, side, 1)
    place = indices.to(pixels.device) * 48271 % PLACES**2
    return windows[:, place // PLACES, place % PLACES].transpose(0, 1)


def _blurred(pixels: Tensor, weights: dict[tuple[int, int], int]) -> Tensor:
    """The weighted mean of the images moved by (rows, columns), edges repeated."""
    side = pixels.shape[-1]
    reach = max(abs(offset) for offsets in weights for offset in offsets)
    padded = F.pad(pixels, [reach] * 4, mode="replicate")
    total = torch.zeros_like(pixels)
    for (row, column), weight in weights.items():
        total.add_(padded[..., reach + row :, reach + column :][..., :side, :side], alpha=weight)
    return total / sum(weights.values())


def _moved(pixels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Each pixel taken from another place: whole offsets (B, S, S), edges repeated."""
    side = pixels.shape[-1]
    place = torch.arange(side, device=pixels.device)
    row = (place[:, None] + rows.long()).clamp(0, side - 1)
    column = (place + columns.long()).clamp(0, side - 1)
    source = (row * side + column).flatten(1)[:, None].expand(-1, 3, -1)
    return pixels.flatten(2).gather(2, source).view_as(pixels)


def _unit(pixels: Tensor) -> int:
    """The length that strengths are measured in: 2 pixels of 32."""
    return max(1, round(pixels.shape[-1] / 16))


def gray(pixels: Tensor) -> Tensor:
    red, green, blue = pixels.unbind(1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue)[:, None]  # (B, 1, S, S)


def _snow(pixels: Tensor, indices: Tensor) -> Tensor:
    flakes = (_noise(pixels, indices)[:, :1] > 1.7).float()
    length = _unit(pixels) + 1
    streaks = (_blurred(flakes, {(step, step): 1 for step in range(length)}) * length).clamp(max=0.95)
    return (0.8 * pixels + 45).lerp(torch.full_like(pixels, 250), streaks)


def _frost(pixels: Tensor, indices: Tensor) -> Tensor:
    smooth, white = _noise(pixels, indices, smooth=True)[:, :1], _noise(pixels, indices)[:, :1]
    ice = torch.exp(-4 * smooth.abs()) * 0.7 + (0.08 * white.abs()).clamp(max=0.25)  # ridges and grains, 0..1
    blueish = torch.tensor([190.0, 225.0, 255.0], device=pixels.device)[:, None, None]
    return 0.7 * pixels + ice * blueish


def _fog(pixels: Tensor, indices: Tensor) -> Tensor:
    density = (0.5 + 0.12 * _noise(pixels, indices, smooth=True)[:, :1]).clamp(0.2, 0.8)
    return pixels.lerp(torch.full_like(pixels, 215), density)


def _brightness(pixels: Tensor, indices: Tensor) -> Tensor:
    return pixels + 80


def _contrast(pixels: Tensor, indices: Tensor) -> Tensor:
    mean = pixels.mean(dim=(1, 2, 3), keepdim=True, dtype=torch.float64).float()
    return mean.lerp(pixels, 0.3)


def _spatter(pixels: Tensor, indices: Tensor) -> Tensor:
    noise = _noise(pixels, indices, smooth=True)
    mud = torch.tensor([70.0, 50.0, 25.0], device=pixels.device)[:, None, None].expand_as(pixels)
    drops = ((noise[:, 1:2] + 0.3 * _noise(pixels, indices)[:, 1:2] - 0.7) * 3).clamp(0, 0.9)
    return pixels.lerp(mud, drops)


def _elastic(pixels: Tensor, indices: Tensor) -> Tensor:
    rows, columns, _ = (_noise(pixels, indices, smooth=True) * 0.85 * _unit(pixels)).round().unbind(1)
    return _moved(pixels, rows, columns)


@lru_cache(maxsize=2)
def _cosines(device: torch.device) -> Tensor:
    """The 8-point DCT-II, (8, 8), in 1/1024: whole numbers, whose float64 products are exact in any order."""
    place = torch.arange(8, dtype=torch.float64)
    cosines = torch.cos((2 * place + 1) * place[:, None] * torch.pi / 16) / 2
    cosines[0] /= 2**0.5
    return (cosines * 1024).round().to(device)


def _jpeg(pixels: Tensor, indices: Tensor) -> Tensor:
    side = pixels.shape[-1]
    padded = F.pad(pixels, [0, -side % 8, 0, -side % 8], mode="replicate").double() - 128
    blocks = padded.unfold(2, 8, 8).unfold(3, 8, 8)  # (B, 3, S/8, S/8, 8, 8)
    cosines, steps = _cosines(pixels.device), torch.tensor(STEPS, device=pixels.device) * JPEG_STEPS
    levels = (cosines @ blocks @ cosines.T / 2**20 / steps).round()
    blocks = cosines.T @ (levels * steps) @ cosines / 2**20
    joined = blocks.permute(0, 1, 2, 4, 3, 5).reshape(padded.shape)
    return joined[:, :, :side, :side].float() + 128


def _pixelate(pixels: Tensor, indices: Tensor) -> Tensor:
    size = _unit(pixels) + 1
    place = torch.arange(pixels.shape[-1], device=pixels.device) // size
    return F.avg_pool2d(pixels, size, ceil_mode=True)[:, :, place][..., place]


def _saturate(pixels: Tensor, indices: Tensor) -> Tensor:
    return gray(pixels).lerp(pixels, 3.0)


def _gaussian_noise(pixels: Tensor, indices: Tensor) -> Tensor:
    return pixels + 30 * _noise(pixels, indices)


def _shot_noise(pixels: Tensor, indices: Tensor) -> Tensor:
    return pixels + 3.5 * pixels.sqrt() * _noise(pixels, indices)


def _impulse_noise(pixels: Tensor, indices: Tensor) -> Tensor:
    noise = _noise(pixels, indices)
    return pixels.masked_fill(noise > 1.75, 255).masked_fill(noise < -1.75, 0)  # 8 % of the values


def _speckle_noise(pixels: Tensor, indices: Tensor) -> Tensor:
    return pixels + 0.3 * pixels * _noise(pixels, indices)


def _gaussian_blur(pixels: Tensor, indices: Tensor) -> Tensor:
    """A binomial kernel of seven taps."""
    step = (_unit(pixels) + 1) // 2
    taps = {place * step: weight for place, weight in zip(range(-3, 4), (1, 6, 15, 20, 15, 6, 1), strict=True)}
    rows = _blurred(pixels, {(place, 0): weight for place, weight in taps.items()})
    return _blurred(rows, {(0, place): weight for place, weight in taps.items()})


def _defocus_blur(pixels: Tensor, indices: Tensor) -> Tensor:
    radius = round(1.5 * _unit(pixels))
    reach = range(-radius, radius + 1)
    disc = {(row, column): 1 for row in reach for column in reach if row**2 + column**2 <= (radius + 0.3) ** 2}
    return _blurred(pixels, disc)


def _glass_blur(pixels: Tensor, indices: Tensor) -> Tensor:
    rows, columns, _ = (_noise(pixels, indices) * _unit(pixels) * 0.7).round().unbind(1)
    return _moved(pixels, rows, columns)


def _motion_blur(pixels: Tensor, indices: Tensor) -> Tensor:
    reach = _unit(pixels)
    return _blurred(pixels, {(step, step): 1 for step in range(-reach, reach + 1)})


def _zoom_blur(pixels: Tensor, indices: Tensor) -> Tensor:
    side = pixels.shape[-1]
    centred = torch.arange(side, device=pixels.device) - (side - 1) / 2
    zooms = (1.0, 1.1, 1.2, 1.3, 1.4)
    total = torch.zeros_like(pixels)
    for zoom in zooms:
        place = (centred / zoom + (side - 1) / 2).round().long()
        total += pixels[:, :, place][..., place]
    return total / len(zooms)


def _original(pixels: Tensor, indices: Tensor) -> Tensor:
    return pixels


CORRUPTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "snow": _snow,
    "frost": _frost,
    "fog": _fog,
    "brightness": _brightness,
    "contrast": _contrast,
    "spatter": _spatter,
    "elastic": _elastic,
    "jpeg": _jpeg,
    "pixelate": _pixelate,
    "saturate": _saturate,
    # the second set
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
    "speckle_noise": _speckle_noise,
    "gaussian_blur": _gaussian_blur,
    "defocus_blur": _defocus_blur,
    "glass_blur": _glass_blur,
    "motion_blur": _motion_blur,
    "zoom_blur": _zoom_blur,
    "original": _original,
}


def corrupt(name: str, pixels: Tensor, indices: Tensor) -> Tensor:
    """uint8 images (B, 3, S, S) under one of `CORRUPTIONS`; `indices` (B,) decide what is random in it."""
    return CORRUPTIONS[name](pixels.float(), indices).round_().clamp_(0, 255).to(torch.uint8)
