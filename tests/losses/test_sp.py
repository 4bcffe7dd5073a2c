from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from losses.sp import SP, compute_similarities, sp
from tests.losses.batches import SIZES, make_batch
from tests.losses.literals import STUDENT, TEACHER, draw, rotate


def test_literal() -> None:
    assert sp(STUDENT, TEACHER).item() == pytest.approx(0.0442897410, abs=1e-10)


def test_loss_is_a_loop_over_pairs() -> None:
    student, teacher = draw(5, 3).numpy(), 2 * draw(5, 4, seed=1).numpy()
    expected = 0.0
    for i in range(5):
        own, other = (np.array([one[i] @ one[j] for j in range(5)]) for one in (student, teacher))
        for j in range(5):
            expected += (own[j] / np.sqrt(sum(own**2)) - other[j] / np.sqrt(sum(other**2))) ** 2 / 25
    assert sp(torch.tensor(student), torch.tensor(teacher)).item() == pytest.approx(expected, rel=1e-10)


def test_rotation_and_scale_are_ignored() -> None:
    features = draw(5, 3)
    torch.testing.assert_close(compute_similarities(7 * rotate(features)), compute_similarities(features))
    assert sp(7 * rotate(features), features).item() == pytest.approx(0, abs=1e-12)


def test_gradients_agree_with_differences() -> None:
    def of(student: Tensor) -> Tensor:
        return sp(student, draw(4, 2, seed=1))

    assert torch.autograd.gradcheck(of, draw(4, 3).requires_grad_())


def test_empty_features_have_finite_gradients() -> None:
    student = torch.zeros(3, 2, requires_grad=True)
    sp(student, torch.rand(3, 2)).backward()
    assert student.grad.isfinite().all()


def test_module_is_the_function_of_flattened_maps() -> None:
    student, teacher, _ = batch = make_batch(0)
    for loss, taps in ((SP(), ["stage3"]), (SP({"stage1": 1.0, "stage3": 2.0}), ["stage1", "stage3"])):
        loss.setup(SIZES)
        found = loss(*batch)
        assert list(found) == taps
        for tap, term in found.items():
            torch.testing.assert_close(
                term, sp(student.maps[tap].reshape(6, -1), teacher.maps[tap].reshape(6, -1))
            )
