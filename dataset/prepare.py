"""What a run trains and is tested on: split images, their normalisation, planted cues, and a fingerprint of all.

Letters: N images, C classes, S side in pixels.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dataset.cues.cue_file import balanced_positions, most_frequent, own_cues
from dataset.cues.shortcut import Cues, assign, balance, counterfactual, cue_of_class, number_of_cues
from dataset.files.stored_pixels import Pixels, StoredPixels, pieces
from dataset.identity import DataIdentity
from dataset.images import ImageTensors
from dataset.sources import Source
from errors import UserError
from settings.images import Data, Shortcut

NO_SHORTCUT = Shortcut()


@dataclass(frozen=True)
class TrainingData:
    """What a phase trains and measures on."""

    train: ImageTensors  # under the students' cues
    val: ImageTensors | None
    test: ImageTensors  # never with a planted cue
    classes: list[str]
    fingerprint: str  # of all images and the cues of the training images
    identity: DataIdentity
    settings: Data
    mean: Tensor
    std: Tensor
    balanced: ImageTensors | None = None  # the held-out images, each class under all cues alike
    held_out: ImageTensors | None = None  # all of them under cues drawn as the students' are, to choose methods by
    shortcut: Shortcut = NO_SHORTCUT
    classes_cue: Tensor | None = None  # (C,)
    cue_count: int = 0
    teacher_cues: Cues | None = None  # of the training images, where they are planted
    test_names: NDArray[np.str_] | None = None  # of the files of the test images, where they lie in some

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def uses_workers(self) -> bool:
        """Whether other processes make training batches; of pixels on a GPU this one makes them all."""
        return self.settings.workers > 0 and not self.train.on_gpu

    def other_cues(self, view: int) -> Cues | None:
        """The cues under which a teacher sees this view of the training images, None for the student's."""
        own = self.train.cues
        if own is None or self.shortcut.pairs == "same":
            return None
        return replace(own, of_image=counterfactual(own.of_image, own.count, self.shortcut.seed, view))

    def for_teacher(self) -> TrainingData:
        """The same images in the same order under the teacher's cues, unmixed, for the teacher's own training."""
        if self.settings.mix != "none":
            return replace(self, settings=self.settings.model_copy(update={"mix": "none"})).for_teacher()
        if self.teacher_cues is None:
            return self
        train, unpaired = self.train.under(self.teacher_cues), self.shortcut.model_copy(update={"pairs": "same"})
        fingerprint = fingerprint_of(self.identity.digest, train)
        return replace(self, train=train, shortcut=unpaired, fingerprint=fingerprint)

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
            fingerprint=fingerprint_of(f"{self.identity.digest} balanced", self.balanced),
            teacher_cues=None,
        )


def prepare(
    source: Source, settings: Data, device: torch.device, shortcut: Shortcut = NO_SHORTCUT
) -> TrainingData:
    """Tensors of a source, normalised by the config's mean and deviation or those of its training images.

    Planted cues change neither the normalisation nor the test images. With them held-out images serve as the
    balanced ones and to choose among finished models, never for validation.

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
        source.identity.digest,
        source.identity,
        settings,
        mean,
        std,
        shortcut=shortcut,
        test_names=source.test.names,
    )
    data = replace(data, held_out=data.val)
    if shortcut.cue == "none":
        return data
    return _labelled(data, source) if shortcut.cue == "file" else _planted(data, source)


def _planted(data: TrainingData, source: Source) -> TrainingData:
    shortcut, labels = data.shortcut, data.train.labels
    if shortcut.cue == "gray" and not _coloured(source.train.pixels):
        raise UserError("shortcut.cue: gray shows nothing in images without colour: use background or patch")
    count = number_of_cues(shortcut.cue, data.num_classes)
    classes_cue = cue_of_class(shortcut.cue, data.classes, shortcut.seed)

    def cues(arm: str, labels: Tensor, held_out: bool = False) -> Cues:
        conflicting = shortcut.conflicting if arm == "biased" else "uniform"
        of_image = assign(labels, classes_cue, count, conflicting, shortcut.seed, held_out)
        return Cues(shortcut.cue, classes_cue, count, of_image)

    balanced = data.val and data.val.under(
        Cues(shortcut.cue, classes_cue, count, balance(data.val.labels, count, shortcut.seed))
    )
    train = data.train.under(cues(shortcut.students, labels))
    return replace(
        data,
        train=train,
        val=None,
        balanced=balanced,
        held_out=data.val and data.val.under(cues(shortcut.students, data.val.labels, held_out=True)),
        fingerprint=fingerprint_of(data.identity.digest, train),
        classes_cue=classes_cue.to(labels.device),
        cue_count=count,
        teacher_cues=cues(shortcut.teacher, labels),
    )


def _labelled(data: TrainingData, source: Source) -> TrainingData:
    """The cues that the images have already; balanced are as many held-out images of each class and cue."""
    shortcut, device = data.shortcut, data.train.device
    if "unbiased" in (shortcut.teacher, shortcut.students):
        raise UserError("shortcut.cue: file plants nothing: teacher and students can only be biased")
    assert shortcut.file is not None
    (train, val, test), count = own_cues(shortcut.file, source)
    classes_cue = most_frequent(data.train.labels, train, data.num_classes, count)
    balanced, held_out = None, data.val and data.val.under(Cues("file", classes_cue, count, val))
    if data.val is not None:
        chosen = balanced_positions(source.val.labels, val.numpy(), count, shortcut.seed)
        balanced = ImageTensors(source.val.take(chosen), data.mean, data.std, device)
        balanced = balanced.under(Cues("file", classes_cue, count, val[chosen]))
    labelled = data.train.under(Cues("file", classes_cue, count, train))
    return replace(
        data,
        train=labelled,
        val=held_out,
        held_out=held_out,
        test=data.test.under(Cues("file", classes_cue, count, test)),
        balanced=balanced,
        fingerprint=fingerprint_of(data.identity.digest, labelled),
        classes_cue=classes_cue.to(device),
        cue_count=count,
    )


def _coloured(pixels: Pixels | StoredPixels, sample: int = 1000) -> bool:
    some = pixels[:: max(1, len(pixels) // sample)]
    return bool((some != some[:, :1]).any())


def fingerprint_of(source: str, images: ImageTensors) -> str:
    """Digest of a source's own and of the cues of its images."""
    cues = images.cues
    assert cues is not None
    digest = hashlib.sha256(f"{source} {cues.kind} {cues.count}".encode())
    digest.update(cues.classes_cue.cpu().numpy().data)
    digest.update(cues.of_image.cpu().numpy().data)
    return digest.hexdigest()[:16]


def channel_statistics(pixels: Pixels | StoredPixels) -> tuple[Tensor, Tensor]:
    """Mean and deviation (3,) in 0..1 of uint8 images (N, 3, S, S), over all their pixels, by histograms."""
    counts = np.zeros((3, 256), dtype=np.int64)
    for some in pieces(pixels):
        for channel in range(3):
            counts[channel] += np.bincount(some[:, channel].reshape(-1), minlength=256)
    values = np.arange(256) / 255
    share = counts / counts.sum(axis=1, keepdims=True)
    mean = share @ values
    std = np.sqrt((share * (values - mean[:, None]) ** 2).sum(axis=1))
    std = np.where(std > 0, std, 1.0)  # a constant channel carries nothing, leave it at zero
    return torch.tensor(mean, dtype=torch.float32), torch.tensor(std, dtype=torch.float32)
