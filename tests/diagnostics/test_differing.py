from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dataset.files.decoded_cache import Images
from dataset.images import ImageTensors
from diagnostics.differing import (
    BOTH_WRONG,
    ONLY_A,
    ONLY_B,
    SHOWN_SIDE,
    Classifier,
    differing,
    pairs_to_show,
    positions_to_show,
    show,
)
from diagnostics.evaluation import recording_file
from diagnostics.evaluation.recording import Recording
from tests.diagnostics.report.test_folder import pictured, recordings, usual

LABELS = np.array([0, 0, 0, 1, 1, 2])
NAMES = np.array([f"test/{number}.png" for number in range(6)])


def answering(name: str, answers: list[int], sure: list[float]) -> Classifier:
    """A model that gives its answers these probabilities, and the other two classes the rest in equal parts."""
    rest = (1 - np.array(sure)[:, None]) / 2
    chances = np.where(np.eye(3, dtype=bool)[answers], np.array(sure)[:, None], rest)
    return Classifier(name, name, np.log(chances).astype(np.float32))


TEACHER = answering("teacher", [0, 0, 0, 1, 2, 0], [0.9] * 6)
STUDENT = answering("two_stage", [1, 2, 0, 0, 1, 1], [0.6, 0.8, 0.9, 0.7, 0.5, 0.4])


def test_images_by_how_models_differ_the_surest_wrong_answer_first():
    (found,) = differing([TEACHER, STUDENT], LABELS, ["a", "b", "猫"], NAMES)
    assert (found.a, found.b) == ("teacher", "two_stage")
    kinds = {kind.what: kind for kind in found.kinds}
    assert {what: kind.count for what, kind in kinds.items()} == {ONLY_A: 3, ONLY_B: 1, BOTH_WRONG: 1}
    assert [image.index for image in kinds[ONLY_A].images] == [1, 3, 0]
    first = kinds[ONLY_A].images[0]
    assert (first.file, first.label, first.answer_a, first.answer_b) == ("test/1.png", "a", "a", "猫")
    assert first.probability_b == pytest.approx(0.8, abs=1e-6)
    assert [(image.answer_a, image.answer_b) for image in kinds[BOTH_WRONG].images] == [("a", "b")]
    assert positions_to_show([TEACHER, STUDENT], LABELS) == [0, 1, 3, 4, 5]


def test_the_student_in_question_meets_the_teacher_and_the_best_of_the_others():
    kd, good = answering("kd", [1] * 6, [0.9] * 6), answering("crd", LABELS.tolist(), [0.9] * 6)
    pairs = pairs_to_show([TEACHER, kd, good, STUDENT], LABELS)
    assert [(a.name, b.name) for a, b in pairs] == [("teacher", "two_stage"), ("crd", "two_stage")]
    assert pairs_to_show([TEACHER], LABELS) == pairs_to_show([STUDENT], LABELS) == pairs_to_show([], LABELS) == []
    (alone,) = differing([kd, STUDENT], LABELS, ["a", "b", "c"], None)
    assert alone.a == "kd" and {image.file for kind in alone.kinds for image in kind.images} == {""}


def test_large_images_are_made_smaller_and_small_ones_kept():
    zero = torch.zeros(3)

    def tensors(side: int) -> ImageTensors:
        pixels = np.arange(2 * 3 * side * side).reshape(2, 3, side, side).astype(np.uint8)
        return ImageTensors(Images(pixels, np.zeros(2, np.int64)), zero, zero + 1, torch.device("cpu"))

    small = tensors(8)
    assert np.array_equal(show(small, [1]).pixels, small.pixels[1:].numpy()) and show(small, [1]).indices == [1]
    assert show(tensors(2 * SHOWN_SIDE), [0, 1]).pixels.shape == (2, 3, SHOWN_SIDE, SHOWN_SIDE)
    assert show(small, []).pixels.shape == (0, 3, 8, 8)


def test_a_recording_keeps_names_and_images_and_refuses_what_is_none(tmp_path):
    path = tmp_path / "predictions.npz"

    def again(found: Recording) -> Recording:
        with open(path, "wb") as file:
            recording_file.write(found, file)
        return recording_file.read(path)

    whole = pictured(recordings(usual()))
    read = again(whole)
    assert read.names.tolist() == whole.names.tolist()
    assert np.array_equal(read.shown.indices, whole.shown.indices)
    assert np.array_equal(read.shown.pixels, whole.shown.pixels)
    assert again(recordings(usual())).names is None
    for wrong in (
        replace(whole, names=whole.names[1:]),
        replace(whole, names=np.zeros(len(whole.labels))),
        replace(whole, shown=replace(whole.shown, pixels=whole.shown.pixels.astype(float))),
        replace(whole, shown=replace(whole.shown, pixels=whole.shown.pixels[1:])),
        replace(whole, shown=replace(whole.shown, indices=whole.shown.indices + len(whole.labels))),
        replace(whole, shown=replace(whole.shown, pixels=whole.shown.pixels.repeat(SHOWN_SIDE, axis=2))),
    ):
        with pytest.raises(ValueError, match="names|shown"):
            again(wrong)
