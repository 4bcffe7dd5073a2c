from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax

from losses.dist import compute_correlations, compute_dist
from tests.losses.literals import draw


def test_loss_is_numpys_correlation_in_loops() -> None:
    student, teacher = (softmax(draw(6, 5, seed=seed).numpy() / 2, axis=1) for seed in (0, 1))
    rows = np.mean([np.corrcoef(student[image], teacher[image])[0, 1] for image in range(6)])
    columns = np.mean([np.corrcoef(student[:, c], teacher[:, c])[0, 1] for c in range(5)])
    expected = 4 * (0.5 * (1 - rows) + 3 * (1 - columns))
    assert compute_dist(draw(6, 5), draw(6, 5, seed=1), 0.5, 3, 2).item() == pytest.approx(expected, rel=1e-10)


def test_equal_answers_cost_nothing() -> None:
    assert compute_dist(draw(6, 5), draw(6, 5) + 7, 1, 1, 4).item() == pytest.approx(0, abs=1e-12)


def test_scale_and_shift_of_rows_are_ignored() -> None:
    first, second = draw(4, 5), draw(4, 5, seed=1)
    changed = 7 * first + draw(4, 1, seed=2)
    torch.testing.assert_close(compute_correlations(changed, second), compute_correlations(first, second))
