"""Common corruptions at five severities, made on the fly, and the mean corruption error of a student relative
to its teacher (Hendrycks & Dietterich 2019, "Benchmarking neural network robustness to common corruptions").

The levels are those of CIFAR-10-C, sized for 32x32 images; on larger images they are milder than
ImageNet-C's. Results are rounded to whole pixel values, where CIFAR-10-C truncates.

Letters: B batch, H and W height and width in pixels. Images are uint8 (B, 3, H, W).
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur as blur

SEVERITIES = (1, 2, 3, 4, 5)
KEPT_BYTES = 1 << 28  # of images under all corruptions, up to which they are kept for the next network


def gaussian_noise(images: Tensor, sigma: float, seed: int) -> Tensor:
    """Add noise of standard deviation `sigma`, in units of the full range.

    Each image's noise is seeded by `seed` and a checksum of its own pixels, so it does not depend on how the
    images are batched, ordered or shared among processes.
    """
    noise = [_noise(image, seed) for image in images.cpu().numpy()]  # B of (3, H, W)
    return _to_uint8(_to_float(images) + sigma * torch.from_numpy(np.stack(noise)).to(images.device))


def gaussian_blur(images: Tensor, sigma: float, seed: int) -> Tensor:
    """Blur with a Gaussian of `sigma` pixels, cut off at 4 sigma, the image reflected at its edges."""
    radius = min(round(4 * sigma), *(side - 1 for side in images.shape[2:]))
    return _to_uint8(blur(_to_float(images), [2 * radius + 1] * 2, [sigma, sigma]))


def contrast(images: Tensor, factor: float, seed: int) -> Tensor:
    """Shrink the distance of each pixel to the mean of its channel and image to `factor` of itself."""
    pixels = _to_float(images)
    means = pixels.mean(dim=(2, 3), keepdim=True)  # (B, 3, 1, 1)
    return _to_uint8(means + factor * (pixels - means))


def brightness(images: Tensor, shift: float, seed: int) -> Tensor:
    """Add `shift` to the value of each pixel in HSV space, the largest of its channels."""
    pixels = _to_float(images)
    value = pixels.amax(dim=1, keepdim=True)  # (B, 1, H, W)
    brighter = (value + shift).clamp(max=1.0)
    # Scaling the three channels alike keeps hue and saturation; black has neither and turns grey.
    return _to_uint8(torch.where(value > 0, pixels * brighter / value.clamp(min=1 / 255), brighter))


def pixelate(images: Tensor, scale: float, seed: int) -> Tensor:
    """Shrink each side to `scale` of itself and back, both by a box filter."""
    height, width = images.shape[2:]
    small = (max(1, int(width * scale)), max(1, int(height * scale)))
    box = Image.Resampling.BOX
    return _through_pil(images, lambda image: image.resize(small, box).resize((width, height), box))


def jpeg(images: Tensor, quality: float, seed: int) -> Tensor:
    """Compress as JPEG of `quality` (1 to 100) and decompress."""

    def compress(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=int(quality))
        return Image.open(file)

    return _through_pil(images, compress)


# Each takes the images, a level and a seed, which only the noise uses.
DEGRADATIONS: dict[str, Callable[[Tensor, float, int], Tensor]] = {
    "gaussian_noise": gaussian_noise,
    "gaussian_blur": gaussian_blur,
    "contrast": contrast,
    "brightness": brightness,
    "pixelate": pixelate,
    "jpeg": jpeg,
}

LEVELS: dict[str, tuple[float, float, float, float, float]] = {  # severity 1 to 5
    "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
    "gaussian_blur": (0.4, 0.6, 0.7, 0.8, 1.0),
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
    "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
    "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),
    "jpeg": (80, 65, 58, 50, 40),
}


def degrade(images: Tensor, name: str, severity: int, seed: int = 0) -> Tensor:
    """Corrupt uint8 images (B, 3, H, W) by one of `DEGRADATIONS` at severity 1 to 5; shape and device stay.

    The result for an image follows from its pixels, name, severity and seed alone, in a batch of any size.

    Raises
    ------
    ValueError : an unknown name, a severity outside 1 to 5, images of another type or shape.
    """
    if name not in DEGRADATIONS:
        raise ValueError(f"unknown corruption {name!r}, choose one of {', '.join(DEGRADATIONS)}")
    if severity not in SEVERITIES:
        raise ValueError(f"severity must be 1, 2, 3, 4 or 5, got {severity}")
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images must be uint8 (B, 3, H, W), got {images.dtype} {tuple(images.shape)}")
    if len(images) == 0:
        return images
    level, seed = LEVELS[name][severity - 1], zlib.crc32(f"{seed} {name} {severity}".encode())
    return DEGRADATIONS[name](images, level, seed)


@dataclass(frozen=True)
class Degraded:
    """Images under each corruption, made once for all networks that are shown them, where they take little memory.

    clean is uint8 (B, 3, H, W) on the CPU.
    """

    clean: Tensor
    kept: dict[tuple[str, int], Tensor] = field(default_factory=dict)

    def under(self, name: str, severity: int) -> Tensor:
        """What `degrade` makes of them."""
        found = self.kept.get((name, severity))
        if found is None:
            found = degrade(self.clean, name, severity)
            if self.clean.nbytes * len(DEGRADATIONS) * len(SEVERITIES) <= KEPT_BYTES:
                self.kept[name, severity] = found
        return found


@dataclass(frozen=True)
class CorruptionError:
    """Error under corruption as a multiple of the reference's: 1 the same, below 1 more robust."""

    mean: float | None  # over all six corruptions; None if one of them is not defined
    by_corruption: dict[str, float | None]
    notes: dict[str, str]


def mean_corruption_error(
    errors: Mapping[str, Sequence[float]], reference_errors: Mapping[str, Sequence[float]]
) -> CorruptionError:
    """Errors relative to a reference, after the mCE of Hendrycks & Dietterich 2019, section 4.3.

    Theirs is of fifteen corruptions against AlexNet, this of six against the teacher: not the same number.

    Parameters
    ----------
    errors, reference_errors : for each corruption the error rates in [0, 1] at severity 1 to 5.

    CE_c = (sum over severities of the errors) / (the same sum of the reference); the mean is that of CE_c over
    c. It is not a percentage. A corruption under which the reference never errs has no CE.

    Raises
    ------
    ValueError : no corruption, different corruptions in the two, not five rates, a rate outside [0, 1].
    """
    if not errors or errors.keys() != reference_errors.keys():
        raise ValueError(f"need the same corruptions, got {sorted(errors)} and {sorted(reference_errors)}")
    for rates in (*errors.values(), *reference_errors.values()):
        if len(rates) != len(SEVERITIES) or not all(0 <= rate <= 1 for rate in rates):
            raise ValueError(f"each corruption needs 5 error rates in [0, 1], got {list(rates)}")

    ratios: dict[str, float | None] = {}
    for name, rates in errors.items():
        reference = float(sum(reference_errors[name]))
        ratios[name] = float(sum(rates)) / reference if reference else None
    defined = [ratio for ratio in ratios.values() if ratio is not None]
    if len(defined) == len(ratios):
        return CorruptionError(sum(defined) / len(defined), ratios, {})
    undefined = [name for name, ratio in ratios.items() if ratio is None]
    why = f"The reference never errs under {', '.join(undefined)}."
    return CorruptionError(None, ratios, {"mean": why, "by_corruption": why})


def _noise(image: np.ndarray, seed: int) -> np.ndarray:
    generator = np.random.default_rng([seed, zlib.crc32(image.tobytes())])
    return generator.standard_normal(image.shape, dtype=np.float32)


def _through_pil(images: Tensor, change: Callable[[Image.Image], Image.Image]) -> Tensor:
    """Change each of B images by Pillow, whose filters and JPEG are CIFAR-10-C's, on the CPU."""
    pixels = images.permute(0, 2, 3, 1).cpu().numpy()  # (B, H, W, 3)
    changed = np.stack([np.asarray(change(Image.fromarray(image))) for image in pixels])
    return torch.from_numpy(changed).permute(0, 3, 1, 2).contiguous().to(images.device)


def _to_float(images: Tensor) -> Tensor:
    return images.float() / 255


def _to_uint8(pixels: Tensor) -> Tensor:
    return (pixels.clamp(0, 1) * 255).round().to(torch.uint8)
