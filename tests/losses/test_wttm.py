from __future__ import annotations

import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy
from torch import Tensor

from losses.kl import softened_kl, standardise
from losses.wttm import WTTM, wttm
from tests.losses.batches import make_batch
from tests.losses.literals import Z_STUDENT, Z_TEACHER, draw


def test_literal() -> None:
    assert wttm(Z_STUDENT, Z_TEACHER, 0.2).item() == pytest.approx(0.8294560807, abs=1e-10)


def test_power_1_is_plain_kl() -> None:
    student, teacher = 3 * draw(6, 5), 3 * draw(6, 5, seed=1)
    assert wttm(student, teacher, 1).item() == pytest.approx(softened_kl(student, teacher, 1).item(), rel=1e-5)


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
    assert wttm(student, teacher, gamma, weights).item() == pytest.approx(expected, rel=1e-10)


def test_power_is_a_temperature() -> None:
    """The teacher's powered shares are its softmax at temperature 1 / γ; images are weighted by their sum."""
    student, teacher = draw(1, 5), draw(1, 5, seed=1)
    weight = (softmax(teacher.numpy()) ** 0.25).sum()
    softened = entropy(softmax(teacher[0].numpy() / 4), softmax(student[0].numpy()))
    assert wttm(student, teacher, 0.25).item() == pytest.approx(weight * softened)


def test_gradients_agree_with_differences() -> None:
    weights = torch.linspace(0, 2, 6).double()

    def of(student: Tensor) -> Tensor:
        return wttm(student, draw(6, 5, seed=1), 0.2, weights)

    assert torch.autograd.gradcheck(of, draw(6, 5).requires_grad_())


def test_module_is_the_function_of_its_options() -> None:
    student, teacher, samples = batch = make_batch(0, weighted=True)
    expected = wttm(student.logits, teacher.logits, 0.3, samples.weights)
    torch.testing.assert_close(WTTM(0.3)(*batch), expected)
    logits = standardise(student.logits), standardise(teacher.logits)
    torch.testing.assert_close(WTTM(standardise=True)(*batch), wttm(*logits, 0.2, samples.weights))
