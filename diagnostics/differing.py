"""Images on which two models differ, the surest wrong answers first.

Letters: N test images, C classes, E images that are shown, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.special import softmax

from dataset.images import ImageTensors
from diagnostics.names import choose_main

EACH = 8  # images shown of each kind of a pair
SHOWN_SIDE = 128  # most pixels of a side of them
ONLY_A, ONLY_B, BOTH_WRONG = "only A right", "only B right", "both wrong, not alike"


@dataclass(frozen=True)
class Classifier:
    """A recorded model and its logits (N, C) on the test images."""

    name: str
    method: str
    logits: NDArray[np.float32]

    @cached_property
    def answers(self) -> NDArray[np.int64]:
        """Class of each image, (N,)."""
        return np.asarray(self.logits.argmax(axis=1))

    @cached_property
    def sure(self) -> NDArray[np.float64]:
        """Probability in 0..1 of each answer, (N,)."""
        return np.asarray(softmax(self.logits.astype(np.float64), axis=1).max(axis=1))


@dataclass(frozen=True)
class Answered:
    """A test image and the answers of two models, with the probability in 0..1 that each gives its answer."""

    index: int  # in the test set
    file: str  # empty where the images lie in no files of their own
    label: str
    answer_a: str
    probability_a: float
    answer_b: str
    probability_b: float


@dataclass(frozen=True)
class Kind:
    """One way to differ: the number of images, and some of them."""

    what: str
    count: int
    images: list[Answered]


@dataclass(frozen=True)
class Differing:
    """Two models and the images on which their answers differ."""

    a: str
    b: str
    kinds: list[Kind]


@dataclass(frozen=True)
class ShownImages:
    """Some test images as bytes, before normalisation; larger ones are made smaller."""

    indices: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))  # (E,) positions
    pixels: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 3, 1, 1), np.uint8))  # (E, 3, S, S)


def find_main_model(models: Sequence[Classifier]) -> str:
    """Return the student that the report is about; the teacher where there is none."""
    return choose_main([model.name for model in models if model.method != "teacher"] or [models[0].name])


def choose_pairs(models: Sequence[Classifier], labels: NDArray[np.int64]) -> list[tuple[Classifier, Classifier]]:
    """Return teacher and best other student, each paired with the main one."""
    if not models:
        return []
    main = next(model for model in models if model.name == find_main_model(models))
    teachers = [model for model in models if model.method == "teacher" and model is not main]
    others = [model for model in models if model not in teachers and model is not main]
    best = [max(others, key=lambda model: float((model.answers == labels).mean()))] if others else []
    return [(model, main) for model in (*teachers, *best)]


def _find_kinds(
    a: Classifier, b: Classifier, labels: NDArray[np.int64], most: int = EACH
) -> dict[str, tuple[int, list[int]]]:
    """Return images of each kind: their number, and the surest wrong answers."""
    right_a, right_b = a.answers == labels, b.answers == labels
    kinds = {
        ONLY_A: (right_a & ~right_b, b.sure),
        ONLY_B: (~right_a & right_b, a.sure),
        BOTH_WRONG: (~right_a & ~right_b & (a.answers != b.answers), np.maximum(a.sure, b.sure)),
    }
    found = {}
    for what, (at, sure) in kinds.items():
        images = np.flatnonzero(at)
        found[what] = (len(images), images[np.lexsort((images, -sure[images]))][:most].tolist())
    return found


def find_differing(
    models: Sequence[Classifier],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    names: NDArray[np.str_] | None,
) -> list[Differing]:
    """Return the images on which the models of each pair differ.

    models: of the first seed. names: (N,) of the files of the test images, None where they lie in none.
    """

    def describe_image(a: Classifier, b: Classifier, image: int) -> Answered:
        file = "" if names is None else str(names[image])
        own, other = ((classes[one.answers[image]], float(one.sure[image])) for one in (a, b))
        return Answered(image, file, classes[labels[image]], *own, *other)

    return [
        Differing(
            a.name,
            b.name,
            [
                Kind(what, count, [describe_image(a, b, image) for image in images])
                for what, (count, images) in _find_kinds(a, b, labels).items()
            ],
        )
        for a, b in choose_pairs(models, labels)
    ]


def choose_positions(models: Sequence[Classifier], labels: NDArray[np.int64]) -> list[int]:
    """Return all images that `find_differing` names, each once, in order."""
    pairs = choose_pairs(models, labels)
    return sorted(
        {image for a, b in pairs for _, images in _find_kinds(a, b, labels).values() for image in images}
    )


def copy_pixels(images: ImageTensors, positions: Sequence[int]) -> ShownImages:
    """Return the pixels of some images."""
    indices = torch.tensor(positions, dtype=torch.int64)
    pixels = images.load_raw(indices).cpu()
    if images.side > SHOWN_SIDE:
        smaller = F.interpolate(pixels.float(), size=(SHOWN_SIDE, SHOWN_SIDE), mode="area")
        pixels = smaller.round().to(torch.uint8)
    return ShownImages(indices.numpy(), pixels.numpy())
