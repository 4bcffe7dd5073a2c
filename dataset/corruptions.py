"""Corruptions of images, as planted cues and to measure robustness.

`apply_corruption` has our own simple forms of those in Corrupted CIFAR-10 (Nam et al., "Learning from Failure",
NeurIPS 2020) at one moderate strength. What is random is cut from fixed fields at a place that follows from the
image's index alone, so an image gets the same in every batch. Sums have whole numbers or a fixed order for that
reason.

`apply_degradation` has six of Hendrycks and Dietterich (ICLR 2019) at the levels of CIFAR-10-C, sized for 32x32
images: on larger ones they are milder than ImageNet-C's. Results are rounded, where CIFAR-10-C truncates.

Letters: B batch, H, W and S height, width and side. `pixels` are float32 (B, 3, S, S) in 0..255 in the first part,
uint8 (B, 3, H, W) in the second.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from dataset.views.augment import make_generator

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
def _draw_field(side: int, cell: int, device: torch.device) -> Tensor:
    """Draw normal noise (3, S + 256, S + 256), smooth over `cell` pixels."""
    size = side + PLACES - 1
    coarse = torch.randn(1, 3, size // cell + 2, size // cell + 2, generator=make_generator(0, cell))
    field = F.interpolate(coarse, scale_factor=cell, mode="bicubic")[0, :, :size, :size] if cell > 1 else coarse[0]
    return (field[:, :size, :size] / field.std()).to(device)


def _cut_noise(pixels: Tensor, indices: Tensor, smooth: bool = False) -> Tensor:
    """Cut each image's piece of a field, white or smooth over a quarter of the side."""
    side = pixels.shape[-1]
    field = _draw_field(side, max(2, side // 4) if smooth else 1, pixels.device)
    place = indices.to(pixels.device) * 48271 % PLACES**2
    return field.unfold(1, side, 1).unfold(2, side, 1)[:, place // PLACES, place % PLACES].transpose(0, 1)


def _average_shifts(pixels: Tensor, weights: dict[tuple[int, int], int]) -> Tensor:
    """Average images moved by (rows, columns) with weights, edges repeated."""
    side = pixels.shape[-1]
    reach = max(abs(offset) for offsets in weights for offset in offsets)
    padded = F.pad(pixels, [reach] * 4, mode="replicate")
    total = torch.zeros_like(pixels)
    for (row, column), weight in weights.items():
        total.add_(padded[..., reach + row :, reach + column :][..., :side, :side], alpha=weight)
    return total / sum(weights.values())


def _move_pixels(pixels: Tensor, noise: Tensor) -> Tensor:
    """Take each pixel from where two channels of the noise point, edges repeated."""
    rows, columns, _ = noise.round().long().unbind(1)  # (B, S, S)
    side = pixels.shape[-1]
    place = torch.arange(side, device=pixels.device)
    source = (place[:, None] + rows).clamp(0, side - 1) * side + (place + columns).clamp(0, side - 1)
    return pixels.flatten(2).gather(2, source.flatten(1)[:, None].expand(-1, 3, -1)).view_as(pixels)


def _scale_length(pixels: Tensor) -> int:
    """Return the length that strengths are measured in: 2 pixels of 32."""
    return max(1, round(pixels.shape[-1] / 16))


def convert_to_gray(pixels: Tensor) -> Tensor:
    """Return the luminance (B, 1, S, S)."""
    red, green, blue = pixels.unbind(1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue)[:, None]


def _add_snow(pixels: Tensor, indices: Tensor) -> Tensor:
    flakes = (_cut_noise(pixels, indices)[:, :1] > 1.7).float()
    length = _scale_length(pixels) + 1
    streaks = (_average_shifts(flakes, {(step, step): 1 for step in range(length)}) * length).clamp(max=0.95)
    return (0.8 * pixels + 45).lerp(torch.full_like(pixels, 250), streaks)


def _add_frost(pixels: Tensor, indices: Tensor) -> Tensor:
    smooth, white = (_cut_noise(pixels, indices, is_smooth)[:, :1] for is_smooth in (True, False))
    ice = torch.exp(-4 * smooth.abs()) * 0.7 + (0.08 * white.abs()).clamp(max=0.25)  # ridges and grains, 0..1
    blueish = torch.tensor([190.0, 225.0, 255.0], device=pixels.device)[:, None, None]
    return 0.7 * pixels + ice * blueish


def _add_fog(pixels: Tensor, indices: Tensor) -> Tensor:
    density = (0.5 + 0.12 * _cut_noise(pixels, indices, smooth=True)[:, :1]).clamp(0.2, 0.8)
    return pixels.lerp(torch.full_like(pixels, 215), density)


def _reduce_contrast(pixels: Tensor, indices: Tensor) -> Tensor:
    return pixels.mean(dim=(1, 2, 3), keepdim=True, dtype=torch.float64).float().lerp(pixels, 0.3)


def _add_spatter(pixels: Tensor, indices: Tensor) -> Tensor:
    smooth, white = (_cut_noise(pixels, indices, is_smooth)[:, 1:2] for is_smooth in (True, False))
    mud = torch.tensor([70.0, 50.0, 25.0], device=pixels.device)[:, None, None].expand_as(pixels)
    return pixels.lerp(mud, ((smooth + 0.3 * white - 0.7) * 3).clamp(0, 0.9))


def _shift_smoothly(pixels: Tensor, indices: Tensor) -> Tensor:
    return _move_pixels(pixels, _cut_noise(pixels, indices, smooth=True) * 0.85 * _scale_length(pixels))


@lru_cache(maxsize=2)
def _compute_cosines(device: torch.device) -> Tensor:
    """Return the 8-point DCT-II (8, 8) in 1/1024, whose float64 products are exact."""
    place = torch.arange(8, dtype=torch.float64)
    cosines = torch.cos((2 * place + 1) * place[:, None] * torch.pi / 16) / 2
    cosines[0] /= 2**0.5
    return (cosines * 1024).round().to(device)


def _quantise_blocks(pixels: Tensor, indices: Tensor) -> Tensor:
    """Lose what JPEG loses, by whole numbers that are the same on every device."""
    side = pixels.shape[-1]
    padded = F.pad(pixels, [0, -side % 8, 0, -side % 8], mode="replicate").double() - 128
    blocks = padded.unfold(2, 8, 8).unfold(3, 8, 8)  # (B, 3, S/8, S/8, 8, 8)
    cosines, steps = _compute_cosines(pixels.device), torch.tensor(STEPS, device=pixels.device) * JPEG_STEPS
    levels = (cosines @ blocks @ cosines.T / 2**20 / steps).round()
    blocks = cosines.T @ (levels * steps) @ cosines / 2**20
    joined = blocks.permute(0, 1, 2, 4, 3, 5).reshape(padded.shape)
    return joined[:, :, :side, :side].float() + 128


def _average_blocks(pixels: Tensor, indices: Tensor) -> Tensor:
    size = _scale_length(pixels) + 1
    place = torch.arange(pixels.shape[-1], device=pixels.device) // size
    return F.avg_pool2d(pixels, size, ceil_mode=True)[:, :, place][..., place]


def _add_impulses(pixels: Tensor, indices: Tensor) -> Tensor:
    noise = _cut_noise(pixels, indices)
    return pixels.masked_fill(noise > 1.75, 255).masked_fill(noise < -1.75, 0)  # 8 % of the values


def _apply_gaussian_blur(pixels: Tensor, indices: Tensor) -> Tensor:
    step = (_scale_length(pixels) + 1) // 2
    weights = dict(zip(range(-3 * step, 4 * step, step), (1, 6, 15, 20, 15, 6, 1), strict=True))
    rows = _average_shifts(pixels, {(place, 0): weight for place, weight in weights.items()})
    return _average_shifts(rows, {(0, place): weight for place, weight in weights.items()})


def _apply_defocus_blur(pixels: Tensor, indices: Tensor) -> Tensor:
    radius = round(1.5 * _scale_length(pixels))
    reach = range(-radius, radius + 1)
    disc = {(row, column): 1 for row in reach for column in reach if row**2 + column**2 <= (radius + 0.3) ** 2}
    return _average_shifts(pixels, disc)


def _apply_motion_blur(pixels: Tensor, indices: Tensor) -> Tensor:
    reach = _scale_length(pixels)
    return _average_shifts(pixels, {(step, step): 1 for step in range(-reach, reach + 1)})


def _apply_zoom_blur(pixels: Tensor, indices: Tensor) -> Tensor:
    side, zooms = pixels.shape[-1], (1.0, 1.1, 1.2, 1.3, 1.4)
    centred = torch.arange(side, device=pixels.device) - (side - 1) / 2
    total = torch.zeros_like(pixels)
    for zoom in zooms:
        place = (centred / zoom + (side - 1) / 2).round().long()
        total += pixels[:, :, place][..., place]
    return total / len(zooms)


CORRUPTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "snow": _add_snow,
    "frost": _add_frost,
    "fog": _add_fog,
    "brightness": lambda pixels, indices: pixels + 80,
    "contrast": _reduce_contrast,
    "spatter": _add_spatter,
    "elastic": _shift_smoothly,
    "jpeg": _quantise_blocks,
    "pixelate": _average_blocks,
    "saturate": lambda pixels, indices: convert_to_gray(pixels).lerp(pixels, 3.0),
    # the second set
    "gaussian_noise": lambda pixels, indices: pixels + 30 * _cut_noise(pixels, indices),
    "shot_noise": lambda pixels, indices: pixels + 3.5 * pixels.sqrt() * _cut_noise(pixels, indices),
    "impulse_noise": _add_impulses,
    "speckle_noise": lambda pixels, indices: pixels + 0.3 * pixels * _cut_noise(pixels, indices),
    "gaussian_blur": _apply_gaussian_blur,
    "defocus_blur": _apply_defocus_blur,
    "glass_blur": lambda pixels, indices: _move_pixels(
        pixels, _cut_noise(pixels, indices) * _scale_length(pixels) * 0.7
    ),
    "motion_blur": _apply_motion_blur,
    "zoom_blur": _apply_zoom_blur,
    "original": lambda pixels, indices: pixels,
}


def apply_corruption(name: str, pixels: Tensor, indices: Tensor) -> Tensor:
    """Corrupt uint8 images (B, 3, S, S), at random by their indices (B,) alone."""
    return CORRUPTIONS[name](pixels.float(), indices).round_().clamp_(0, 255).to(torch.uint8)


SEVERITIES = (1, 2, 3, 4, 5)


def _add_noise(pixels: Tensor, sigma: float, seed: int) -> Tensor:
    """Add noise seeded by `seed` and a checksum of each image's pixels."""
    noise = []
    for image in pixels.cpu().numpy():
        source = np.random.default_rng([seed, zlib.crc32(image.tobytes())])
        noise.append(source.standard_normal(image.shape, dtype=np.float32))
    return pixels.float() / 255 + sigma * torch.from_numpy(np.stack(noise)).to(pixels.device)


def _apply_blur(pixels: Tensor, sigma: float, seed: int) -> Tensor:
    """Apply a Gaussian of `sigma` pixels, cut at 4 sigma, reflecting edges."""
    from torchvision.transforms.v2.functional import gaussian_blur  # slow to import, and planting needs none

    radius = min(round(4 * sigma), *(side - 1 for side in pixels.shape[2:]))
    blurred: Tensor = gaussian_blur(pixels.float() / 255, [2 * radius + 1] * 2, [sigma, sigma])
    return blurred


def _scale_contrast(pixels: Tensor, factor: float, seed: int) -> Tensor:
    """Scale the distance of each pixel to the mean of its channel and image."""
    values = pixels.float() / 255
    means = values.mean(dim=(2, 3), keepdim=True)  # (B, 3, 1, 1)
    return means + factor * (values - means)


def _shift_brightness(pixels: Tensor, shift: float, seed: int) -> Tensor:
    """Add `shift` to the value of each pixel in HSV space, its largest channel."""
    values = pixels.float() / 255
    largest = values.amax(dim=1, keepdim=True)  # (B, 1, H, W)
    brighter = (largest + shift).clamp(max=1.0)
    # Scaling the three channels alike keeps hue and saturation; black has neither and turns grey.
    return torch.where(largest > 0, values * brighter / largest.clamp(min=1 / 255), brighter)


def _reduce_resolution(pixels: Tensor, scale: float, seed: int) -> Tensor:
    """Shrink each side to `scale` of itself and back, both by a box filter."""
    height, width = pixels.shape[2:]
    small, box = (max(1, int(width * scale)), max(1, int(height * scale))), Image.Resampling.BOX
    return _transform_by_pillow(pixels, lambda image: image.resize(small, box).resize((width, height), box))


def _compress_as_jpeg(pixels: Tensor, quality: float, seed: int) -> Tensor:
    def compress(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=int(quality))
        return Image.open(file)

    return _transform_by_pillow(pixels, compress)


def _transform_by_pillow(pixels: Tensor, change: Callable[[Image.Image], Image.Image]) -> Tensor:
    """Transform images by Pillow, as CIFAR-10-C does, to values in 0..1."""
    images = pixels.permute(0, 2, 3, 1).cpu().numpy()  # (B, H, W, 3)
    changed = np.stack([np.asarray(change(Image.fromarray(image))) for image in images])
    return torch.from_numpy(changed).permute(0, 3, 1, 2).contiguous().to(pixels.device).float() / 255


# Each takes images, a level and a seed, which the noise alone uses; the levels are those of severity 1 to 5.
DEGRADATIONS: dict[str, tuple[Callable[[Tensor, float, int], Tensor], tuple[float, ...]]] = {
    "gaussian_noise": (_add_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "gaussian_blur": (_apply_blur, (0.4, 0.6, 0.7, 0.8, 1.0)),
    "contrast": (_scale_contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "brightness": (_shift_brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "pixelate": (_reduce_resolution, (0.95, 0.9, 0.85, 0.75, 0.65)),
    "jpeg": (_compress_as_jpeg, (80, 65, 58, 50, 40)),
}


def apply_degradation(images: Tensor, name: str, severity: int, seed: int = 0) -> Tensor:
    """Corrupt uint8 images (B, 3, H, W) by one of `DEGRADATIONS` at severity 1 to 5.

    The result for an image follows from its pixels, name, severity and seed alone, in a batch of any size.
    """
    apply, levels = DEGRADATIONS[name]
    changed = apply(images, levels[severity - 1], zlib.crc32(f"{seed} {name} {severity}".encode()))
    return (changed.clamp(0, 1) * 255).round().to(torch.uint8)
