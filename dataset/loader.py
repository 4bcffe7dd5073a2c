"""Batches: whole tensors cut from the uint8 arrays, augmented, stamped and normalised on the model's device.

Letters: N images, B batch, C classes, S side in pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from config import Data, Shortcut
from dataset.augment import View, apply_view, draw_view, generator, normalise
from dataset.cue_file import balanced_positions, most_frequent, own_cues
from dataset.shortcut import Cues, assign, balance, cue_of_class, number_of_cues
from dataset.sources import Images, Source
from errors import UserError

NO_SHORTCUT = Shortcut()


@dataclass(frozen=True)
class Batch:
    """Some images as a network sees them."""

    images: Tensor  # (B, 3, S, S) float32, normalised
    labels: Tensor  # (B,)
    indices: Tensor  # (B,) positions in the data set
    view: int  # number of the view the images were made by, -1 for none


class ImageTensors:
    """Labelled uint8 images as tensors, with the normalisation of their data set and perhaps a cue each.

    Pixels move to the model's device once where they fit into a quarter of its free memory; otherwise each
    batch does.
    """

    def __init__(
        self, images: Images, mean: Tensor, std: Tensor, device: torch.device, cues: Cues | None = None
    ) -> None:
        self.device = device
        self.pixels = torch.from_numpy(images.pixels).contiguous()  # decoded ones have the channels last
        if device.type == "cuda" and self.pixels.nbytes < torch.cuda.mem_get_info(device)[0] / 4:
            self.pixels = self.pixels.to(device)
        self.labels = torch.from_numpy(images.labels).to(device)
        self.mean, self.std = mean.to(device), std.to(device)
        self.cues = cues

    def __len__(self) -> int:
        return len(self.labels)

    def under(self, cues: Cues) -> ImageTensors:
        """The same images, sharing their memory, under these cues."""
        images = copy(self)
        images.cues = replace(
            cues, classes_cue=cues.classes_cue.to(self.device), of_image=cues.of_image.to(self.device)
        )
        return images

    def raw(self, indices: Tensor) -> Tensor:
        """uint8 pixels (B, 3, S, S) of `indices` (B,) on the model's device, without a cue."""
        return self.pixels.index_select(0, indices.to(self.pixels.device)).to(self.device, non_blocking=True)

    def normalised(self, indices: Tensor) -> Tensor:
        """Images (B, 3, S, S) float32 of `indices` (B,) under their cues, not augmented."""
        return normalise(self._stamped(self.raw(indices), indices), self.mean, self.std)

    def augmented(self, indices: Tensor, view: View) -> Tensor:
        """Images (B, 3, S, S) float32 of `indices` (B,): cropped and mirrored first, so that cues stay whole."""
        pixels = apply_view(self.raw(indices), indices, view)
        return normalise(self._stamped(pixels, indices), self.mean, self.std)

    def _stamped(self, pixels: Tensor, indices: Tensor) -> Tensor:
        return pixels if self.cues is None else self.cues.stamp(pixels, indices)

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """All images in order, not augmented; the last batch may be smaller."""
        for indices in torch.arange(len(self), device=self.device).split(batch_size):
            yield Batch(self.normalised(indices), self.labels[indices], indices, -1)


@dataclass(frozen=True)
class TrainingData:
    """What a phase trains and measures on."""

    train: ImageTensors  # under the students' cues
    val: ImageTensors | None
    test: ImageTensors  # never with a planted cue
    classes: list[str]
    fingerprint: str  # of the training images and their cues
    settings: Data
    mean: Tensor
    std: Tensor
    balanced: ImageTensors | None = None  # the held-out images, each class under all cues alike
    shortcut: Shortcut = NO_SHORTCUT
    classes_cue: Tensor | None = None  # (C,)
    cue_count: int = 0
    source_fingerprint: str = ""  # of the images alone
    teacher_cues: Cues | None = None  # of the training images, where they are planted

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def for_teacher(self) -> TrainingData:
        """The same images in the same order under the teacher's cues."""
        if self.teacher_cues is None:
            return self
        train = self.train.under(self.teacher_cues)
        return replace(self, train=train, fingerprint=_fingerprint(self.source_fingerprint, train))

    def on_balanced(self) -> TrainingData:
        """The balanced images as training images.

        Raises:
            UserError: there are none.
        """
        if self.balanced is None:
            raise UserError("images: balanced needs a cue (shortcut.cue) and held-out images (data.val_fraction)")
        return replace(
            self,
            train=self.balanced,
            val=None,
            fingerprint=_fingerprint(f"{self.source_fingerprint} balanced", self.balanced),
            teacher_cues=None,
        )


def prepare(
    source: Source, settings: Data, device: torch.device, shortcut: Shortcut = NO_SHORTCUT
) -> TrainingData:
    """Tensors of a source, normalised by the config's mean and deviation or those of its training images.

    Planted cues change neither the normalisation nor the test images. With them held-out images serve as the
    balanced ones, never for validation.

    Raises:
        UserError: a cue that these images cannot have.
    """
    mean, std = channel_statistics(source.train.pixels)
    mean = mean if settings.mean is None else torch.tensor(settings.mean)
    std = std if settings.std is None else torch.tensor(settings.std)
    train, val, test = (ImageTensors(part, mean, std, device) for part in (source.train, source.val, source.test))
    data = TrainingData(
        train,
        val if len(val) else None,
        test,
        source.classes,
        source.fingerprint,
        settings,
        mean,
        std,
        shortcut=shortcut,
        source_fingerprint=source.fingerprint,
    )
    if shortcut.cue == "none":
        return data
    return _labelled(data, source) if shortcut.cue == "file" else _planted(data, source)


def _planted(data: TrainingData, source: Source) -> TrainingData:
    shortcut, labels = data.shortcut, data.train.labels
    if shortcut.cue == "gray" and not _coloured(source.train.pixels):
        raise UserError("shortcut.cue: gray shows nothing in images without colour: use background or patch")
    count = number_of_cues(shortcut.cue, data.num_classes)
    classes_cue = cue_of_class(shortcut.cue, data.classes, shortcut.seed)

    def cues(arm: str) -> Cues:
        conflicting = shortcut.conflicting if arm == "biased" else "uniform"
        of_image = assign(labels, classes_cue, count, conflicting, shortcut.seed)
        return Cues(shortcut.cue, classes_cue, count, of_image)

    balanced = data.val and data.val.under(
        Cues(shortcut.cue, classes_cue, count, balance(data.val.labels, count, shortcut.seed))
    )
    train = data.train.under(cues(shortcut.students))
    return replace(
        data,
        train=train,
        val=None,
        balanced=balanced,
        fingerprint=_fingerprint(data.source_fingerprint, train),
        classes_cue=classes_cue.to(labels.device),
        cue_count=count,
        teacher_cues=cues(shortcut.teacher),
    )


def _labelled(data: TrainingData, source: Source) -> TrainingData:
    """The cues that the images have already; balanced are as many held-out images of each class and cue."""
    shortcut, device = data.shortcut, data.train.device
    if "unbiased" in (shortcut.teacher, shortcut.students):
        raise UserError("shortcut.cue: file plants nothing: teacher and students can only be biased")
    assert shortcut.file is not None
    (train, val, test), count = own_cues(shortcut.file, source)
    classes_cue = most_frequent(data.train.labels, train, data.num_classes, count)
    balanced = None
    if data.val is not None:
        chosen = balanced_positions(source.val.labels, val.numpy(), count, shortcut.seed)
        balanced = ImageTensors(source.val.take(chosen), data.mean, data.std, device)
        balanced = balanced.under(Cues("file", classes_cue, count, val[chosen]))
    labelled = data.train.under(Cues("file", classes_cue, count, train))
    return replace(
        data,
        train=labelled,
        val=data.val and data.val.under(Cues("file", classes_cue, count, val)),
        test=data.test.under(Cues("file", classes_cue, count, test)),
        balanced=balanced,
        fingerprint=_fingerprint(data.source_fingerprint, labelled),
        classes_cue=classes_cue.to(device),
        cue_count=count,
    )


def _coloured(pixels: np.ndarray, sample: int = 1000) -> bool:
    some = pixels[:: max(1, len(pixels) // sample)]
    return bool((some != some[:, :1]).any())


def _fingerprint(source: str, images: ImageTensors) -> str:
    """Of a source and the cues of its images."""
    cues = images.cues
    assert cues is not None
    digest = hashlib.sha256(f"{source} {cues.kind} {cues.count}".encode())
    digest.update(cues.classes_cue.cpu().numpy())
    digest.update(cues.of_image.cpu().numpy())
    return digest.hexdigest()[:16]


def channel_statistics(pixels: np.ndarray, chunk: int = 4096) -> tuple[Tensor, Tensor]:
    """Mean and deviation (3,) in 0..1 of uint8 images (N, 3, S, S), over all their pixels, by histograms."""
    counts = np.zeros((3, 256), dtype=np.int64)
    for start in range(0, len(pixels), chunk):
        for channel in range(3):
            counts[channel] += np.bincount(pixels[start : start + chunk, channel].reshape(-1), minlength=256)
    values = np.arange(256) / 255
    share = counts / counts.sum(axis=1, keepdims=True)
    mean = share @ values
    std = np.sqrt((share * (values - mean[:, None]) ** 2).sum(axis=1))
    std = np.where(std > 0, std, 1.0)  # a constant channel carries nothing, leave it at zero
    return torch.tensor(mean, dtype=torch.float32), torch.tensor(std, dtype=torch.float32)


def steps_per_epoch(num_images: int, batch_size: int) -> int:
    """Whole batches in an epoch; what is left over is dropped, and a batch is never larger than the data."""
    return num_images // min(batch_size, num_images)


def training_batches(
    data: TrainingData, batch_size: int, seed: int, epoch: int, view: int, rank: int = 0, world_size: int = 1
) -> Iterator[Batch]:
    """One epoch of augmented batches; order is a function of (seed, epoch), pixels of (data.seed, view).

    Of each global batch a process gets every `world_size`-th image, starting at `rank`.
    """
    num_images = len(data.train)
    batch_size = min(batch_size, num_images)
    order = torch.randperm(num_images, generator=generator(seed, epoch))
    drawn = draw_view(data.settings.seed, view, num_images, data.settings.crop, data.settings.flip)
    for step in range(steps_per_epoch(num_images, batch_size)):
        indices = order[step * batch_size : (step + 1) * batch_size][rank::world_size]
        images = data.train.augmented(indices, drawn)
        indices = indices.to(data.train.device)
        yield Batch(images, data.train.labels[indices], indices, view)
