from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import Tensor

from losses.dist import DIST, correlate_rows, dist
from losses.kl import standardise
from tests.losses.batches import SIZES, make_batch
from tests.losses.literals import Z_STUDENT, Z_TEACHER, draw


@pytest.mark.parametrize(("temperature", "expected"), [(1, 3.2066345621), (4, 54.0382612945)])
def test_literals(temperature: float, expected: float) -> None:
    """They have 1e-8 beside each product of lengths, which matters in the seventh digit at temperature 4."""
    assert dist(Z_STUDENT, Z_TEACHER, 1, 1, temperature).item() == pytest.approx(expected, rel=5e-7)


def test_loss_is_numpys_correlation_in_loops() -> None:
    student, teacher = (softmax(draw(6, 5, seed=seed).numpy() / 2, axis=1) for seed in (0, 1))
    rows = np.mean([np.corrcoef(student[image], teacher[image])[0, 1] for image in range(6)])
    columns = np.mean([np.corrcoef(student[:, c], teacher[:, c])[0, 1] for c in range(5)])
    expected = 4 * (0.5 * (1 - rows) + 3 * (1 - columns))
    assert dist(draw(6, 5), draw(6, 5, seed=1), 0.5, 3, 2).item() == pytest.approx(expected, rel=1e-10)


def test_equal_answers_cost_nothing() -> None:
    assert dist(draw(6, 5), draw(6, 5) + 7, 1, 1, 4).item() == pytest.approx(0, abs=1e-12)


def test_scale_and_shift_of_rows_are_ignored() -> None:
    first, second = draw(4, 5), draw(4, 5, seed=1)
    changed = 7 * first + draw(4, 1, seed=2)
    torch.testing.assert_close(correlate_rows(changed, second), correlate_rows(first, second))


def test_constant_rows_have_no_correlation_and_no_gradient() -> None:
    rows = torch.ones(2, 3, requires_grad=True)
    found = correlate_rows(rows, torch.rand(2, 3))
    found.sum().backward()
    assert found.tolist() == [0, 0] and rows.grad.isfinite().all()


def test_gradients_agree_with_differences() -> None:
    def of(student: Tensor) -> Tensor:
        return dist(student, draw(4, 3, seed=1), 0.5, 3, 2)

    assert torch.autograd.gradcheck(of, draw(4, 3).requires_grad_())


def test_module_is_the_function_of_its_options() -> None:
    student, teacher, _ = batch = make_batch(0)

    def ask(**options: object) -> Tensor:
        loss = DIST(**options)
        loss.setup(SIZES)
        return loss(*batch)

    given = {"beta": 0.5, "gamma": 3.0, "temperature": 2.0}
    torch.testing.assert_close(ask(**given), dist(student.logits, teacher.logits, **given))
    logits = standardise(student.logits), standardise(teacher.logits)
    torch.testing.assert_close(ask(standardise=True), dist(*logits, 1, 1, 4))
