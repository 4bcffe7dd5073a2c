"""A recording under planted cues: the answers of a run's networks.

Nothing here needs torch, so that a study's report does without it. Letters: n test images, J shows an image,
C classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from diagnostics.plain import FLAT, WHERE_GIVEN
from diagnostics.shortcut.measures import CuedAnswers, CuedImages

Array = NDArray[Any]


@dataclass(frozen=True)
class HeldOut:
    """Measures of one model; None where there is no teacher, or no image under balanced cues.

    held_out_kl is the mean T² · KL(teacher / T ‖ student / T) in nats, under cues drawn as the students' are.
    """

    held_out_kl: float | None
    held_out_top1: float  # accuracy on the same images under the same cues, in 0..1
    held_out_unbiased: float | None  # mean accuracy over cells of class and cue, each class under all cues alike


@dataclass(frozen=True)
class Decoding:
    """Balanced accuracy in 0..1 of probes that read cue and label off a model's features."""

    cue_decoding: float | None
    label_decoding: float | None


@dataclass(frozen=True)
class CuedModel:
    """Facts of a model beside its answers."""

    method: str
    arch: str
    weights_hash: str
    history: dict[str, list[float]]  # every term and measure of its last stage, one value an epoch
    test_top1: float  # of clean images where there are some, else of the images with their own cue
    decoding: Decoding | None = field(metadata=FLAT | WHERE_GIVEN)  # None without a cue
    held_out: HeldOut | None = field(default=None, metadata=FLAT | WHERE_GIVEN)  # None without held-out images
    stage1: dict[str, list[float]] = field(default_factory=dict)  # the same of the features stage it began with


@dataclass(frozen=True)
class CueContext:
    """The run of a recording."""

    point: dict[str, Any]  # of the study's grid
    seed: int
    shortcut: dict[str, Any]  # the config's section
    temperature: float = 4.0  # T of the held-out KL
    cue_read: float | None = None  # accuracy of a probe that reads the cue alone off augmented images
    held_out_images: int | None = None  # number of them, None without any or in recordings from before
    class_counts: list[int] = field(default_factory=list)  # (C,) training images, empty in recordings from before


@dataclass(frozen=True)
class CueRecording:
    """The models of a run on the test images."""

    about: CueContext
    models: list[CuedModel]
    labels: Array  # (n,)
    classes_cue: Array  # (C,), empty without a cue
    cues: Array  # (n, J), J = 0 without a cue
    predictions: Array  # (models, n, J) int16
    clean: Array  # (models, n) int16 without a cue, no rows where the images always have theirs

    def get_shown(self, number: int) -> CuedAnswers | None:
        """Return the answers of the `number`-th model; None without a cue."""
        return self._shown[number]

    @cached_property
    def _shown(self) -> list[CuedAnswers | None]:
        if not self.cues.shape[1]:
            return [None] * len(self.models)
        shows = CuedImages(self.labels, self.cues, self.classes_cue)
        cleans = self.clean if len(self.clean) else [None] * len(self.models)
        return [CuedAnswers(shows, *pair) for pair in zip(self.predictions, cleans, strict=True)]
