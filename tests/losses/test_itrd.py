from __future__ import annotations

import numpy as np
import pytest
import torch

from losses.itrd import measure_correlation, measure_gram
from tests.losses.literals import draw, rotate


def test_correlation_is_a_loop_over_channels() -> None:
    student, teacher = draw(5, 3).numpy(), 2 * draw(5, 3, seed=1).numpy() + 1
    total = 0.0
    for d in range(3):
        correlation = np.corrcoef(student[:, d], teacher[:, d])[0, 1] * (1 - 1 / 5)  # as published
        total += abs(1 - correlation) ** 4
    found = measure_correlation(torch.tensor(student), torch.tensor(teacher), 2).item()
    assert found == pytest.approx(np.log2(total), rel=1e-10)


def test_gram_is_a_loop_over_pairs() -> None:
    student, teacher = draw(5, 3).numpy(), 2 * draw(5, 3, seed=1).numpy() + 1
    own, other = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (student, teacher))
    expected = 0.0
    for i in range(5):
        for j in range(5):
            alone, joint = own[i] @ own[j], (own[i] @ own[j]) * (other[i] @ other[j])
            expected += (alone / 5) ** 2 - (joint / 5) ** 2  # of unit vectors both traces are 5
    found = measure_gram(torch.tensor(student), torch.tensor(teacher)).item()
    assert found == pytest.approx(expected, rel=1e-10)


def test_correlation_ignores_scale_and_shift_of_channels() -> None:
    student, teacher = draw(5, 3), draw(5, 3, seed=1)
    changed = student * (1 + draw(1, 3, seed=2).abs()) + draw(1, 3, seed=3)
    torch.testing.assert_close(
        measure_correlation(changed, teacher, 1.5), measure_correlation(student, teacher, 1.5)
    )
    equal = measure_correlation(3 * teacher + 1, teacher, 1.5).item()
    assert equal == pytest.approx(np.log2(3 * (1 / 5) ** 3))


def test_gram_ignores_rotation_and_lengths() -> None:
    student, teacher = draw(5, 3), draw(5, 3, seed=1)
    changed = rotate(student) * (1 + draw(5, 1, seed=2).abs()), rotate(teacher, seed=3)
    torch.testing.assert_close(measure_gram(*changed), measure_gram(student, teacher))


def test_constant_channels_have_no_correlation() -> None:
    student, teacher = torch.rand(4, 2).requires_grad_(), torch.rand(4, 2)
    teacher[:, 1] = 0.0  # a channel that no image of the batch excites
    loss = measure_correlation(student, teacher, 1.5)
    loss.backward()
    assert loss.isfinite() and student.grad.isfinite().all() and not student.grad[:, 1].any()
