from __future__ import annotations

import numpy as np
import pytest
import torch

from losses.sp import compute_similarities, compute_sp
from tests.losses.literals import draw, rotate


def test_loss_is_a_loop_over_pairs() -> None:
    student, teacher = draw(5, 3).numpy(), 2 * draw(5, 4, seed=1).numpy()
    expected = 0.0
    for i in range(5):
        own, other = (np.array([one[i] @ one[j] for j in range(5)]) for one in (student, teacher))
        for j in range(5):
            expected += (own[j] / np.sqrt(sum(own**2)) - other[j] / np.sqrt(sum(other**2))) ** 2 / 25
    assert compute_sp(torch.tensor(student), torch.tensor(teacher)).item() == pytest.approx(expected, rel=1e-10)


def test_rotation_and_scale_are_ignored() -> None:
    features = draw(5, 3)
    torch.testing.assert_close(compute_similarities(7 * rotate(features)), compute_similarities(features))
    assert compute_sp(7 * rotate(features), features).item() == pytest.approx(0, abs=1e-12)
