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
    choose_pairs,
    choose_positions,
    copy_pixels,
    find_differing,
)
from diagnostics.evaluation import recording_file
from diagnostics.evaluation.recording import Recording
from tests.diagnostics.report.test_folder import pictured, recordings, usual

LABELS = np.array([0, 0, 0, 1, 1, 2])
NAMES = np.array([f"test/{number}.png" for number in range(6)])


def make_model(name: str, answers: list[int], sure: list[float]) -> Classifier:
    """A model that gives its answers these probabilities, and the other two classes the rest in equal parts."""
    rest = (1 - np.array(sure)[:, None]) / 2
    chances = np.where(np.eye(3, dtype=bool)[answers], np.array(sure)[:, None], rest)
    return Classifier(name, name, np.log(chances).astype(np.float32))


TEACHER = make_model("teacher", [0, 0, 0, 1, 2, 0], [0.9] * 6)
STUDENT = make_model("two_stage", [1, 2, 0, 0, 1, 1], [0.6, 0.8, 0.9, 0.7, 0.5, 0.4])


def test_surest_wrong_answers_come_first() -> None:
    (found,) = find_differing([TEACHER, STUDENT], LABELS, ["a", "b", "猫"], NAMES)
    assert (found.a, found.b) == ("teacher", "two_stage")
    kinds = {kind.what: kind for kind in found.kinds}
    assert {what: kind.count for what, kind in kinds.items()} == {ONLY_A: 3, ONLY_B: 1, BOTH_WRONG: 1}
    assert [image.index for image in kinds[ONLY_A].images] == [1, 3, 0]
    first = kinds[ONLY_A].images[0]
    assert (first.file, first.label, first.answer_a, first.answer_b) == ("test/1.png", "a", "a", "猫")
    assert first.probability_b == pytest.approx(0.8, abs=1e-6)
    assert [(image.answer_a, image.answer_b) for image in kinds[BOTH_WRONG].images] == [("a", "b")]
    assert choose_positions([TEACHER, STUDENT], LABELS) == [0, 1, 3, 4, 5]


def test_main_student_meets_teacher_and_best_other() -> None:
    kd, good = make_model("kd", [1] * 6, [0.9] * 6), make_model("crd", LABELS.tolist(), [0.9] * 6)
    pairs = choose_pairs([TEACHER, kd, good, STUDENT], LABELS)
    assert [(a.name, b.name) for a, b in pairs] == [("teacher", "two_stage"), ("crd", "two_stage")]
    assert choose_pairs([TEACHER], LABELS) == choose_pairs([STUDENT], LABELS) == choose_pairs([], LABELS) == []
    (alone,) = find_differing([kd, STUDENT], LABELS, ["a", "b", "c"], None)
    assert alone.a == "kd" and {image.file for kind in alone.kinds for image in kind.images} == {""}


def test_only_large_images_are_made_smaller() -> None:
    zero = torch.zeros(3)

    def make_tensors(side: int) -> ImageTensors:
        pixels = np.arange(2 * 3 * side * side).reshape(2, 3, side, side).astype(np.uint8)
        return ImageTensors(Images(pixels, np.zeros(2, np.int64)), zero, zero + 1, torch.device("cpu"))

    small = make_tensors(8)
    assert np.array_equal(copy_pixels(small, [1]).pixels, small.pixels[1:].numpy()) and copy_pixels(
        small, [1]
    ).indices == [1]
    assert copy_pixels(make_tensors(2 * SHOWN_SIDE), [0, 1]).pixels.shape == (2, 3, SHOWN_SIDE, SHOWN_SIDE)
    assert copy_pixels(small, []).pixels.shape == (0, 3, 8, 8)


def test_recording_keeps_names_and_images(tmp_path) -> None:
    path = tmp_path / "predictions.npz"

    def write_and_read(found: Recording) -> Recording:
        with open(path, "wb") as file:
            recording_file.write_recording(found, file)
        return recording_file.read_recording(path)

    whole = pictured(recordings(usual()))
    read = write_and_read(whole)
    assert read.names.tolist() == whole.names.tolist()
    assert np.array_equal(read.shown.indices, whole.shown.indices)
    assert np.array_equal(read.shown.pixels, whole.shown.pixels)
    assert write_and_read(recordings(usual())).names is None
    for wrong in (
        replace(whole, names=whole.names[1:]),
        replace(whole, names=np.zeros(len(whole.labels))),
        replace(whole, shown=replace(whole.shown, pixels=whole.shown.pixels.astype(float))),
        replace(whole, shown=replace(whole.shown, pixels=whole.shown.pixels[1:])),
        replace(whole, shown=replace(whole.shown, indices=whole.shown.indices + len(whole.labels))),
        replace(whole, shown=replace(whole.shown, pixels=whole.shown.pixels.repeat(SHOWN_SIDE, axis=2))),
    ):
        with pytest.raises(ValueError, match="names|shown"):
            write_and_read(wrong)
