"""Labelled images as uint8 tensors, cut into batches as a network sees them.

Letters: N images, B batch, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dataset.cues.shortcut import Cues
from dataset.files.decoded_cache import Images
from dataset.files.stored_pixels import Pixels, StoredPixels
from dataset.transfer import to_device
from dataset.views.augment import Augmentation, apply_view, normalise
from errors import info


@dataclass(frozen=True)
class Batch:
    """Some images as a network sees them."""

    images: Tensor  # (B, 3, S, S) float32, normalised
    labels: Tensor  # (B,)
    indices: Tensor  # (B,) positions in the data set
    view: int  # number of the view the images were made by, -1 for none
    counterfactual: Tensor | None = None  # (B, 3, S, S) what the teacher sees in place of `images`
    shares: Tensor | None = None  # (B, C) of the classes in images that are mixed of two
    places: Tensor | None = None  # (B,) `indices` on the CPU, where they were drawn there

    @property
    def targets(self) -> Tensor:
        """Targets of a cross-entropy: the labels (B,), or shares of classes (B, C)."""
        return self.labels if self.shares is None else self.shares

    @property
    def rows(self) -> Tensor:
        """`indices` (B,) on the CPU; without `places` this waits for the device."""
        return self.indices.cpu() if self.places is None else self.places

    def apply(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Return the batch with all images (B, 3, S, S), the teacher's too, changed."""
        theirs = None if self.counterfactual is None else change(self.counterfactual)
        return replace(self, images=change(self.images), counterfactual=theirs)

    @property
    def teacher_images(self) -> Tensor:
        """Images (B, 3, S, S) that the teacher sees, perhaps under other cues."""
        return self.images if self.counterfactual is None else self.counterfactual


def _place(pixels: Pixels | StoredPixels, device: torch.device) -> Tensor | StoredPixels:
    """Place pixels on the device, or leave them in memory or in a file."""
    if isinstance(pixels, StoredPixels):
        if device.type == "cuda":
            info("pixels stay in a file, so none are kept on the GPU: data.workers=4 prepares batches in advance")
        return pixels
    held = torch.from_numpy(pixels).contiguous()  # decoded ones may have the channels last
    fits = device.type == "cuda" and held.nbytes < torch.cuda.mem_get_info(device)[0] / 4
    return held.to(device) if fits else held


def select_pixels(pixels: Tensor | StoredPixels, indices: Tensor) -> Tensor:
    """Select uint8 pixels (B, 3, S, S) at `indices` (B,), read where in a file."""
    if isinstance(pixels, StoredPixels):
        return torch.from_numpy(pixels[indices.cpu().numpy()])
    return pixels.index_select(0, to_device(indices, pixels.device))


class ImageTensors:
    """Labelled uint8 images as tensors, with a normalisation and perhaps cues.

    Pixels move to the model's device once where they fit into a quarter of its free memory; otherwise each
    batch does, and those that stay in a file are read for it.
    """

    pixels: Tensor | StoredPixels  # (N, 3, S, S)

    def __init__(
        self, images: Images, mean: Tensor, std: Tensor, device: torch.device, cues: Cues | None = None
    ) -> None:
        self.device = device
        self.pixels = _place(images.pixels, device)
        self.labels = torch.from_numpy(images.labels).to(device)
        self.mean, self.std = mean.to(device), std.to(device)
        self.cues = cues

    @property
    def side(self) -> int:
        """S, in pixels."""
        return self.pixels.shape[-1]

    @property
    def is_on_gpu(self) -> bool:
        """Whether all pixels are on a GPU."""
        return isinstance(self.pixels, Tensor) and self.pixels.device.type != "cpu"

    def __len__(self) -> int:
        return len(self.labels)

    def with_cues(self, cues: Cues) -> ImageTensors:
        """Return the same images, sharing their memory, under these cues."""
        images = copy(self)
        classes_cue, image_cues = cues.classes_cue.to(self.device), cues.image_cues.to(self.device)
        images.cues = replace(cues, classes_cue=classes_cue, image_cues=image_cues)
        return images

    def load_raw(self, indices: Tensor) -> Tensor:
        """Return uint8 pixels (B, 3, S, S) of `indices` on the device, without a cue."""
        return to_device(select_pixels(self.pixels, indices), self.device)

    def load_normalised(self, indices: Tensor) -> Tensor:
        """Return normalised images (B, 3, S, S) of `indices` (B,) under their cues."""
        return self.finish(self.load_raw(indices), indices)

    def load_augmented(self, indices: Tensor, view: Augmentation, cues: Cues | None = None) -> Tensor:
        """Return normalised images of `indices` under a view and their cues, or `cues`."""
        return self.finish(self.load_view(indices, view), indices, cues)

    def load_view(self, indices: Tensor, view: Augmentation) -> Tensor:
        """Return raw pixels (B, 3, S, S) of `indices` (B,) under a view."""
        return apply_view(self.load_raw(indices), indices, view)

    def finish(self, pixels: Tensor, indices: Tensor, cues: Cues | None = None) -> Tensor:
        """Normalise uint8 pixels (B, 3, S, S) of `indices` under their cues, or `cues`."""
        cues = cues or self.cues
        stamped = pixels if cues is None else cues.draw(pixels, indices)
        return normalise(stamped, self.mean, self.std)

    def iter_batches(self, batch_size: int) -> Iterator[Batch]:
        """Yield all images in order, not augmented; the last batch may be smaller."""
        for indices in torch.arange(len(self), device=self.device).split(batch_size):
            yield Batch(self.load_normalised(indices), self.labels[indices], indices, -1)
