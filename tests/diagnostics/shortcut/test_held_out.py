from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from diagnostics.shortcut.cued import HeldOut
from diagnostics.shortcut.held_out import HeldOutLogits, measure_held_out

LABELS = torch.tensor([0, 0, 1, 1])
CLASSES_CUE = torch.tensor([0, 1])


def make_data(labels=LABELS, cues=(0, 0, 0, 1), cued=True):
    """Four held-out images of two classes; of the cells (class, cue), (0, 1) has none."""
    images = SimpleNamespace(labels=labels, cues=SimpleNamespace(image_cues=torch.tensor(cues)))
    balanced, classes_cue = (images, CLASSES_CUE) if cued else (None, None)
    return SimpleNamespace(held_out=images, balanced=balanced, classes_cue=classes_cue)


def measure_kl(teacher, student, temperature):
    """The KL of logits on as many images as there are, which have no balanced twins."""
    images = make_data(labels=torch.zeros(len(student), dtype=torch.long), cues=[0] * len(student), cued=False)
    sides = HeldOutLogits(student, None), HeldOutLogits(teacher, None)
    return measure_held_out(*sides, images, temperature).held_out_kl


def test_the_distance_is_the_kl_by_hand() -> None:
    teacher, student = torch.tensor([[math.log(3.0), 0.0]]), torch.tensor([[0.0, 0.0]])
    kl = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)  # of (3/4, 1/4) from (1/2, 1/2)
    assert measure_kl(teacher, student, 1.0) == pytest.approx(kl) == pytest.approx(0.130812, abs=1e-6)
    assert measure_kl(2 * teacher, student, 2.0) == pytest.approx(4 * kl)  # the same softened, times T²
    both = torch.cat([teacher, student]), torch.cat([student, student])
    assert measure_kl(*both, 1.0) == pytest.approx(kl / 2)  # the mean over images
    assert measure_kl(student, teacher, 1.0) == pytest.approx(0.5 * math.log(2 / 3) + 0.5 * math.log(2))


def test_accuracy_as_drawn_and_over_cells() -> None:
    answers = torch.tensor([0, 1, 1, 1])
    logits = torch.nn.functional.one_hot(answers, 2).float()
    own = HeldOutLogits(logits, logits)
    found = measure_held_out(own, HeldOutLogits(logits, None), make_data(), 4.0)
    assert found == HeldOut(0.0, 0.75, pytest.approx((0.5 + 1 + 1) / 3))  # cells (0, 0), (1, 0), (1, 1)
    swapped = HeldOutLogits(logits, 1 - logits)
    assert measure_held_out(swapped, None, make_data(), 4.0) == HeldOut(
        None, 0.75, pytest.approx((0.5 + 0 + 0) / 3)
    )


def test_without_a_cue_no_cells() -> None:
    logits = torch.eye(2)[LABELS]
    own = HeldOutLogits(logits, None)
    assert measure_held_out(own, own, make_data(cued=False), 4.0) == HeldOut(0.0, 1.0, None)
