from __future__ import annotations

import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy

from losses.kl import compute_softened_kl
from losses.wttm import compute_wttm
from tests.losses.literals import draw


def test_power_1_is_plain_kl() -> None:
    student, teacher = 3 * draw(6, 5), 3 * draw(6, 5, seed=1)
    assert compute_wttm(student, teacher, 1).item() == pytest.approx(
        compute_softened_kl(student, teacher, 1).item(), rel=1e-5
    )


@pytest.mark.parametrize("gamma", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_loss_is_a_loop_over_images(gamma: float, weighted: bool) -> None:
    student, teacher = 3 * draw(6, 5), 3 * draw(6, 5, seed=1)
    weights = torch.linspace(0, 2, 6).double() if weighted else None
    expected = 0.0
    for image in range(6):
        powered = softmax(teacher[image].numpy()) ** gamma
        divergence = entropy(powered / powered.sum(), softmax(student[image].numpy()))
        expected += (weights[image].item() if weighted else 1) * powered.sum() * divergence / 6
    assert compute_wttm(student, teacher, gamma, weights).item() == pytest.approx(expected, rel=1e-10)


def test_power_is_a_temperature() -> None:
    """The teacher's powered shares are its softmax at temperature 1 / γ; images are weighted by their sum."""
    student, teacher = draw(1, 5), draw(1, 5, seed=1)
    weight = (softmax(teacher.numpy()) ** 0.25).sum()
    softened = entropy(softmax(teacher[0].numpy() / 4), softmax(student[0].numpy()))
    assert compute_wttm(student, teacher, 0.25).item() == pytest.approx(weight * softened)
