"""Measures of shortcut learning: does a model follow the planted cue?

Each test image is shown under several cues and once without, so that it is its own control. A show of an image of
class y under cue g is aligned where g is the cue of y, conflicting otherwise; a prediction p follows the cue where
g is the cue of p. A(y, g) is the accuracy on images of class y shown under cue g. Where no class has the cue g
(a labelled data set may have such cues) nothing can follow it, so those shows do not count for following.

Letters: n test images, J shows an image, C classes, K cues (those of a class, and those shown), S seeds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import special

from diagnostics.evaluation.archive import check_integers
from diagnostics.statistics import CONFIDENCE, Noted

SMALLEST_GROUP = 10  # images; the worst of smaller groups would be the worst by chance
SMALLEST_GAP = 0.02  # teachers whose following differs by less have too little to hand on for a ratio

NO_ALIGNED = "No image is shown under the cue of its class."
NO_CONFLICTING = "No image is shown under the cue of another class."
TEACHER_NOT_GIVEN = "No teacher is given."
NO_RATIO_OF_ONE = "One seed says nothing about another training, so there is no interval."
NO_BOUND = "The teachers' difference varies so much over these seeds that the ratio has no bounds."


@dataclass(frozen=True)
class CuedImages:
    """The test images under their cues, the same to all models of a run.

    labels (n,), cues (n, J) the cue of each show, all different within an image, classes_cue (C,) the cue of each
    class. All integers of 0 or more. J = 1 is a data set whose images come with the one cue they have.

    Raises ValueError for shapes that do not agree, labels outside [0, C), a cue shown twice.
    """

    labels: NDArray[np.integer]
    cues: NDArray[np.integer]
    classes_cue: NDArray[np.integer]

    def __post_init__(self) -> None:
        n, classes = len(self.labels), len(self.classes_cue)
        if n == 0 or self.cues.ndim != 2 or self.cues.shape[1] == 0:
            raise ValueError(f"cues must have shape ({n}, J) with images and J >= 1, got {self.cues.shape}")
        check_integers("labels", self.labels, (n,), classes)
        check_integers("cues", self.cues, (n, self.cues.shape[1]))
        check_integers("classes_cue", self.classes_cue, (classes,))
        if (np.diff(np.sort(self.cues, axis=1), axis=1) == 0).any():
            raise ValueError("cues must differ within an image: show each image once under each cue")

    @cached_property
    def aligned(self) -> NDArray[np.bool_]:
        """(n, J), where the cue is that of the image's class; all other shows are conflicting."""
        return np.asarray(self.classes_cue[self.labels][:, None] == self.cues)

    @cached_property
    def misleading(self) -> NDArray[np.bool_]:
        """(n, J), conflicting shows whose cue is that of some class."""
        return ~self.aligned & np.isin(self.cues, self.classes_cue)

    @cached_property
    def cells(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The group of class and cue of each show, (n, J), and the shows of each group, (C * K,)."""
        kinds = np.unique(np.concatenate([self.classes_cue, self.cues.ravel()]))  # (K,)
        cell = self.labels[:, None].astype(np.intp) * len(kinds) + np.searchsorted(kinds, self.cues)
        return cell, np.bincount(cell.ravel(), minlength=len(self.classes_cue) * len(kinds))


@dataclass(frozen=True)
class CuedAnswers:
    """The answers of one model to each show: predictions (n, J), clean (n,) predictions without a cue or None.

    Raises ValueError for shapes that do not agree with the shows, or predictions outside [0, C).
    """

    shows: CuedImages
    predictions: NDArray[np.integer]
    clean: NDArray[np.integer] | None

    def __post_init__(self) -> None:
        shape, classes = self.shows.cues.shape, len(self.shows.classes_cue)
        check_integers("predictions", self.predictions, shape, classes)
        if self.clean is not None:
            check_integers("clean", self.clean, shape[:1], classes)

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """(n, J), where the prediction is the label."""
        return np.asarray(self.predictions == self.shows.labels[:, None])

    @cached_property
    def follows(self) -> NDArray[np.bool_]:
        """(n, J), where the cue is that of the predicted class."""
        return np.asarray(self.shows.classes_cue[self.predictions] == self.shows.cues)

    @cached_property
    def fooled(self) -> NDArray[np.bool_]:
        """(n, J), misleading shows whose cue is followed."""
        return self.shows.misleading & self.follows


@dataclass(frozen=True)
class ShortcutMeasures(Noted):
    """Shares in [0, 1] of one model. None where not defined, `notes` says why."""

    images: int
    shows: int  # J
    aligned: float | None  # accuracy on aligned shows
    conflicting: float | None  # accuracy on conflicting shows
    unbiased: float  # mean of A(y, g) over the cells that have images
    worst_group: float | None  # smallest A(y, g)
    following: float | None  # share of conflicting shows on which the prediction follows the cue
    cue_bias: float | None  # following / (following + right) on conflicting shows
    flip_rate: float | None  # share of (image, pair of cues) whose two predictions differ
    clean: float | None  # accuracy without a cue
    fidelity_aligned: float | None  # share of aligned shows with the teacher's prediction
    fidelity_conflicting: float | None  # the same of conflicting shows
    fidelity_followed: float | None  # the same of conflicting shows on which the teacher followed the cue
    also_followed: float | None  # share of those on which the student follows the cue, by whatever class
    notes: dict[str, str]


def measure_shortcut(shown: CuedAnswers, teacher: CuedAnswers | None = None) -> ShortcutMeasures:
    """Compute every measure of one model, and its fidelity to a teacher.

    Raises ValueError where the teacher's shows are others.
    """
    shows = shown.shows
    aligned, misleading, right, followed = shows.aligned, shows.misleading, shown.right, shown.fooled
    notes: dict[str, str] = {}

    def share(name: str, hits: NDArray[np.bool_], among: NDArray[np.bool_], reason: str) -> float | None:
        """Return the share of hits in `among`; None and a note where it is empty."""
        count = np.count_nonzero(among)
        if count:
            return float(np.count_nonzero(hits & among) / count)
        notes[name] = reason
        return None

    unbiased, worst_group = _measure_groups(shown, notes)
    if shown.clean is None:
        notes["clean"] = "The images were not shown without a cue."
    if shows.cues.shape[1] == 1:
        notes["flip_rate"] = "Each image was shown under one cue only."
    undecided = (
        "No conflicting image is recognised and none follows the cue." if misleading.any() else NO_CONFLICTING
    )
    shares = {
        "aligned": share("aligned", right, aligned, NO_ALIGNED),
        "conflicting": share("conflicting", right, ~aligned, NO_CONFLICTING),
        "following": share("following", followed, misleading, NO_CONFLICTING),
        "cue_bias": share("cue_bias", followed, misleading & (followed | right), undecided),
    }
    if teacher is None:
        fidelity = ("fidelity_aligned", "fidelity_conflicting", "fidelity_followed", "also_followed")
        shares |= dict.fromkeys(fidelity)
        notes |= dict.fromkeys(fidelity, TEACHER_NOT_GIVEN)
    else:
        _check_same(shows, teacher.shows)
        same, fooled = shown.predictions == teacher.predictions, teacher.fooled
        nothing = "The teacher follows the cue on no conflicting image." if misleading.any() else NO_CONFLICTING
        shares |= {
            "fidelity_aligned": share("fidelity_aligned", same, aligned, NO_ALIGNED),
            "fidelity_conflicting": share("fidelity_conflicting", same, ~aligned, NO_CONFLICTING),
            "fidelity_followed": share("fidelity_followed", same, fooled, nothing),
            "also_followed": share("also_followed", shown.follows, fooled, nothing),
        }
    return ShortcutMeasures(
        images=len(shows.labels),
        shows=shows.cues.shape[1],
        unbiased=unbiased,
        worst_group=worst_group,
        flip_rate=None if "flip_rate" in notes else _compute_flip_rate(shown.predictions),
        clean=None if shown.clean is None else float((shown.clean == shows.labels).mean()),
        **shares,
        notes=notes,
    )


def _check_same(shows: CuedImages, others: CuedImages) -> None:
    for name in ("labels", "cues", "classes_cue"):
        if shows is not others and not np.array_equal(getattr(shows, name), getattr(others, name)):
            raise ValueError(f"teacher and student must see the same images under the same cues: {name} differ")


def _measure_groups(shown: CuedAnswers, notes: dict[str, str]) -> tuple[float, float | None]:
    """Return mean and smallest of A(y, g)."""
    cell, size = shown.shows.cells
    right = np.bincount(cell[shown.right], minlength=len(size))
    accuracy = right[size > 0] / size[size > 0]
    empty, small = int((size == 0).sum()), int((size < SMALLEST_GROUP).sum())
    if empty:
        notes["unbiased"] = f"{empty} of {len(size)} groups of a class and a cue have no image and are left out."
    if small:
        notes["worst_group"] = f"{small} of {len(size)} groups have fewer than {SMALLEST_GROUP} images."
    return float(accuracy.mean()), None if small else float(accuracy.min())


def _compute_flip_rate(predictions: NDArray[np.integer]) -> float:
    first, second = np.triu_indices(predictions.shape[1], k=1)
    shows = np.ascontiguousarray(predictions.T)  # (J, n)
    differ = np.count_nonzero(shows[first] != shows[second], axis=1)  # of each pair of cues
    return float((differ / len(predictions)).mean())


def compute_following(shown: CuedAnswers) -> NDArray[np.float64]:
    """Compute each image's share of conflicting shows that follow, (n,), or NaN."""
    shows = shown.shows.misleading.sum(axis=1)
    shares = np.full(len(shows), np.nan)
    np.divide(shown.fooled.sum(axis=1), shows, out=shares, where=shows > 0)
    return shares


def compute_excess_following(own: ShortcutMeasures, reference: ShortcutMeasures) -> float | None:
    """Subtract the following of a model trained without the cue, in [-1, 1].

    A model that never reads the cue still "follows" it whenever it confuses two classes.
    """
    if own.following is None or reference.following is None:
        return None
    return own.following - reference.following


def compute_accuracy_gap(own: ShortcutMeasures) -> float | None:
    """Subtract conflicting from aligned accuracy: about 0 without the cue."""
    return None if own.aligned is None or own.conflicting is None else own.aligned - own.conflicting


@dataclass(frozen=True)
class Inheritance(Noted):
    """Share of the teachers' difference in following that their students show: 0 none of it, 1 all of it."""

    value: float | None
    low: float | None
    high: float | None
    seeds: int
    notes: dict[str, str]


def compute_inheritance(
    biased_student: NDArray[np.floating],
    unbiased_student: NDArray[np.floating],
    biased_teacher: NDArray[np.floating],
    unbiased_teacher: NDArray[np.floating],
) -> Inheritance:
    """Compute the students' difference in following over their teachers'.

    (student of biased - student of unbiased teacher) / (biased - unbiased teacher): 0 nothing is inherited, 1 all.
    Each argument is (S, n): for each seed `compute_following` on the same shows; images with a NaN are left out.
    Following of a seed is the mean over its images, and the ratio is that of the sums over seeds, with Fieller's
    interval. No value where the teachers differ by less than SMALLEST_GAP; no interval with one seed, or where the
    teachers vary so much that it has no bound.

    Raises ValueError when shapes differ or a seed has no image left.
    """
    arrays = [np.asarray(a, float) for a in (biased_student, unbiased_student, biased_teacher, unbiased_teacher)]
    shapes = [array.shape for array in arrays]
    if arrays[0].ndim != 2 or len(set(shapes)) != 1:
        raise ValueError(f"the four arrays must all be (S, n): got {shapes}")
    students, teachers = arrays[0] - arrays[1], arrays[2] - arrays[3]  # (S, n)
    kept = np.isfinite(students) & np.isfinite(teachers)
    if not kept.any(axis=1).all():
        raise ValueError("each seed needs an image that all four models saw under the cue of another class")
    own = np.array([students[s, kept[s]].mean() for s in range(len(students))])  # (S,)
    theirs = np.array([teachers[s, kept[s]].mean() for s in range(len(students))])
    if theirs.mean() < SMALLEST_GAP:
        reason = f"The teachers' following differs by less than {100 * SMALLEST_GAP:g} points."
        return Inheritance(None, None, None, len(own), dict.fromkeys(("value", "low", "high"), reason))
    ratio = float(own.mean() / theirs.mean())
    bounds = compute_fieller_interval(own, theirs) if len(own) > 1 else None
    if bounds is None:
        reason = NO_RATIO_OF_ONE if len(own) == 1 else NO_BOUND
        return Inheritance(ratio, None, None, len(own), dict.fromkeys(("low", "high"), reason))
    return Inheritance(ratio, *bounds, len(own), {})


def compute_fieller_interval(
    numerators: NDArray[np.float64], denominators: NDArray[np.float64]
) -> tuple[float, float] | None:
    """Return Fieller's (1954) 95 % interval of a ratio of means of (S,) pairs.

    All ratios r for which the paired t-test does not reject mean(numerators - r denominators) = 0.
    """
    n, d = float(numerators.mean()), float(denominators.mean())
    cov = np.cov(numerators, denominators) / len(numerators)  # (2, 2) of the two means
    t2 = float(special.stdtrit(len(numerators) - 1, (1 + CONFIDENCE) / 2)) ** 2
    a, b, c = d**2 - t2 * cov[1, 1], n * d - t2 * cov[0, 1], n**2 - t2 * cov[0, 0]
    if a <= 0:
        return None
    spread = math.sqrt(max(0.0, b**2 - a * c))
    return float((b - spread) / a), float((b + spread) / a)
