"""Answers on held-out training images, to choose by without test images.

Letters: n images, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dataset.prepare import TrainingData
from diagnostics.shortcut.cued import HeldOut
from diagnostics.shortcut.measures import CuedAnswers, CuedImages, measure_shortcut
from losses.kl import compute_softened_kl


@dataclass(frozen=True)
class HeldOutLogits:
    """A model's logits of the held-out images."""

    drawn: Tensor  # (n, C) under cues drawn as the students' are
    balanced: Tensor | None  # (m, C) of the balanced images, None without any


def measure_held_out(
    own: HeldOutLogits, teacher: HeldOutLogits | None, data: TrainingData, temperature: float
) -> HeldOut:
    """Measure a model by its logits and its teacher's on the same images.

    temperature: T > 0 of the KL. Needs `data.held_out`.
    """
    assert data.held_out is not None
    labels = data.held_out.labels.cpu()
    return HeldOut(
        None if teacher is None else compute_softened_kl(own.drawn, teacher.drawn, temperature).item(),
        float((own.drawn.argmax(dim=1).cpu() == labels).double().mean()),
        None if own.balanced is None else _measure_unbiased(own.balanced, data),
    )


def _measure_unbiased(logits: Tensor, data: TrainingData) -> float | None:
    images = data.balanced
    if images is None or images.cues is None or data.classes_cue is None:
        return None
    predictions, cues = logits.argmax(dim=1)[:, None], images.cues.image_cues[:, None]
    arrays = [part.cpu().numpy() for part in (images.labels, cues, predictions)]
    shows = CuedImages(arrays[0], arrays[1], data.classes_cue.cpu().numpy())
    return measure_shortcut(CuedAnswers(shows, arrays[2], None)).unbiased
