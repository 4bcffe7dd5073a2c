"""Training data: split images, their normalisation and cues, and a fingerprint.

Letters: N images, C classes, S side in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dataset.cues.cue_file import find_frequent_cues, read_own_cues, sample_balanced
from dataset.cues.shortcut import Cues, assign_cues, assign_evenly, count_cues, draw_class_cues, draw_other_cues
from dataset.files.stored_pixels import Pixels, StoredPixels, iter_pieces
from dataset.identity import DataIdentity, compute_digest
from dataset.images import ImageTensors
from dataset.repeats import Repeats
from dataset.sources import Source
from errors import UserError
from settings.images import Data, Shortcut

NO_SHORTCUT, NO_REPEATS = Shortcut(), Repeats()


@dataclass(frozen=True)
class TrainingData:
    """Images, cues and normalisation of a training."""

    train: ImageTensors  # under the students' cues
    val: ImageTensors | None
    test: ImageTensors  # never with a planted cue
    classes: list[str]
    fingerprint: str  # digest of all images and of the training images' cues
    identity: DataIdentity
    settings: Data
    mean: Tensor
    std: Tensor
    balanced: ImageTensors | None = None  # the held-out images, each class under all cues alike
    held_out: ImageTensors | None = None  # with cues drawn like the students', to choose among methods
    shortcut: Shortcut = NO_SHORTCUT
    classes_cue: Tensor | None = None  # (C,)
    cue_count: int = 0
    teacher_cues: Cues | None = None  # of the training images, if cues are planted
    test_names: NDArray[np.str_] | None = None  # file names of the test images, if they come from files
    repeats: Repeats = NO_REPEATS
    draws_classes: bool = False  # an epoch shows each class equally often

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def uses_workers(self) -> bool:
        """Whether worker processes make training batches; never if pixels are on a GPU."""
        return self.settings.workers > 0 and not self.train.is_on_gpu

    def draw_teacher_cues(self, view: int) -> Cues | None:
        """Return the cues of a view for the teacher, None if they are the student's."""
        own = self.train.cues
        if own is None or self.shortcut.pairs == "same":
            return None
        return replace(own, image_cues=draw_other_cues(own.image_cues, own.count, self.shortcut.seed, view))

    def select_teacher_data(self) -> TrainingData:
        """Return the data of the teacher's own training: its cues, images unmixed."""
        data = self
        if self.settings.mix != "none":
            data = replace(self, settings=self.settings.model_copy(update={"mix": "none"}))
        if self.teacher_cues is None:
            return data
        train, unpaired = (
            self.train.with_cues(self.teacher_cues),
            self.shortcut.model_copy(update={"pairs": "same"}),
        )
        fingerprint = compute_fingerprint(self.identity.digest, train)
        return replace(data, train=train, shortcut=unpaired, fingerprint=fingerprint)

    def select_balanced_data(self) -> TrainingData:
        """Return data that trains on the balanced images.

        Raises:
            UserError: there are none.
        """
        if self.balanced is None:
            raise UserError("images: balanced needs a cue (shortcut.cue) and held-out images (data.val_fraction)")
        fingerprint = compute_fingerprint(f"{self.identity.digest} balanced", self.balanced)
        return replace(self, train=self.balanced, val=None, fingerprint=fingerprint, teacher_cues=None)


def prepare(
    source: Source, settings: Data, device: torch.device, shortcut: Shortcut = NO_SHORTCUT
) -> TrainingData:
    """Normalise a source by the config's or its own statistics, and plant cues.

    Planted cues change neither the normalisation nor the test images. If cues are planted, held-out images serve
    balanced training and the choice among finished models, never validation.

    Raises:
        UserError: a cue that these images cannot have.
    """
    mean, std = compute_channel_statistics(source.train.pixels)
    mean = mean if settings.mean is None else torch.tensor(settings.mean)
    std = std if settings.std is None else torch.tensor(settings.std)
    train, val, test = (ImageTensors(part, mean, std, device) for part in (source.train, source.val, source.test))
    held_out = val if len(val) else None
    data = TrainingData(
        train,
        held_out,
        test,
        source.classes,
        source.identity.digest,
        source.identity,
        settings,
        mean,
        std,
        held_out=held_out,
        shortcut=shortcut,
        test_names=source.test.names,
        repeats=source.repeats,
    )
    if shortcut.cue == "none":
        return data
    return _take_own_cues(data, source) if shortcut.cue == "file" else _add_planted_cues(data, source)


def _add_planted_cues(data: TrainingData, source: Source) -> TrainingData:
    shortcut = data.shortcut
    if shortcut.cue == "gray" and not _has_colour(source.train.pixels):
        raise UserError("shortcut.cue: gray shows nothing in images without colour: use background or patch")
    count = count_cues(shortcut.cue, data.num_classes)
    classes_cue = draw_class_cues(shortcut.cue, data.classes, shortcut.seed)

    def draw(arm: str, labels: Tensor, held_out: bool = False) -> Cues:
        conflicting = shortcut.conflicting if arm == "biased" else "uniform"
        image_cues = assign_cues(labels, classes_cue, count, conflicting, shortcut.seed, held_out)
        return Cues(shortcut.cue, classes_cue, count, image_cues)

    balanced = held_out = None
    if data.val is not None:
        even = assign_evenly(data.val.labels, count, shortcut.seed)
        balanced = data.val.with_cues(Cues(shortcut.cue, classes_cue, count, even))
        held_out = data.val.with_cues(draw(shortcut.students, data.val.labels, held_out=True))
    train = data.train.with_cues(draw(shortcut.students, data.train.labels))
    return replace(
        _with_cued_training(data, train),
        val=None,
        balanced=balanced,
        held_out=held_out,
        teacher_cues=draw(shortcut.teacher, data.train.labels),
    )


def _take_own_cues(data: TrainingData, source: Source) -> TrainingData:
    """Read the cues that images have; `balanced` is an even sample of the held-out ones."""
    shortcut = data.shortcut
    if "unbiased" in (shortcut.teacher, shortcut.students):
        raise UserError("shortcut.cue: file plants nothing: teacher and students can only be biased")
    assert shortcut.file is not None
    (train, val, test), count = read_own_cues(shortcut.file, source)
    cues = Cues("file", find_frequent_cues(data.train.labels, train, data.num_classes, count), count, train)
    balanced = held_out = None
    if data.val is not None:
        held_out = data.val.with_cues(replace(cues, image_cues=val))
        chosen = sample_balanced(source.val.labels, val.numpy(), count, shortcut.seed)
        balanced = ImageTensors(source.val.take(chosen), data.mean, data.std, data.train.device)
        balanced = balanced.with_cues(replace(cues, image_cues=val[chosen]))
    return replace(
        _with_cued_training(data, data.train.with_cues(cues)),
        val=held_out,
        held_out=held_out,
        test=data.test.with_cues(replace(cues, image_cues=test)),
        balanced=balanced,
    )


def _with_cued_training(data: TrainingData, train: ImageTensors) -> TrainingData:
    assert train.cues is not None
    return replace(
        data,
        train=train,
        fingerprint=compute_fingerprint(data.identity.digest, train),
        classes_cue=train.cues.classes_cue,
        cue_count=train.cues.count,
    )


def _has_colour(pixels: Pixels | StoredPixels, sample: int = 1000) -> bool:
    some = pixels[:: max(1, len(pixels) // sample)]
    return bool((some != some[:, :1]).any())


def compute_fingerprint(source: str, images: ImageTensors) -> str:
    """Return a digest of a source's digest and of its images' cues."""
    cues = images.cues
    assert cues is not None
    arrays = (cues.classes_cue.cpu().numpy(), cues.image_cues.cpu().numpy())
    return compute_digest(f"{source} {cues.kind} {cues.count}", *arrays)


def compute_channel_statistics(pixels: Pixels | StoredPixels) -> tuple[Tensor, Tensor]:
    """Return mean and deviation (3,) in 0..1 over all pixels, by histograms."""
    counts = np.zeros((3, 256), dtype=np.int64)
    for some in iter_pieces(pixels):
        for channel in range(3):
            counts[channel] += np.bincount(some[:, channel].reshape(-1), minlength=256)
    values = np.arange(256) / 255
    share = counts / counts.sum(axis=1, keepdims=True)
    mean = share @ values
    std = np.sqrt((share * (values - mean[:, None]) ** 2).sum(axis=1))
    std = np.where(std > 0, std, 1.0)  # a constant channel has no information and becomes zero
    return torch.tensor(mean, dtype=torch.float32), torch.tensor(std, dtype=torch.float32)
