from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from losses.pkt import compute_neighbours, compute_pkt
from tests.losses.literals import draw, rotate


def measure_neighbour(features: NDArray[np.float64], i: int, j: int) -> float:
    def measure_near(k: int) -> float:
        lengths = np.linalg.norm(features[i]) * np.linalg.norm(features[k])
        return float((features[i] @ features[k] / lengths + 1) / 2)

    return measure_near(j) / sum(measure_near(k) for k in range(len(features)))


def test_loss_is_a_loop_over_pairs() -> None:
    student, teacher = draw(5, 3).numpy(), draw(5, 4, seed=1).numpy()
    expected = 0.0
    for i in range(5):
        for j in range(5):
            q, p = measure_neighbour(student, i, j), measure_neighbour(teacher, i, j)
            expected += p * np.log((p + 1e-7) / (q + 1e-7)) / 25
    assert compute_pkt(torch.tensor(student), torch.tensor(teacher)).item() == pytest.approx(expected, rel=1e-10)


def test_rows_sum_to_1() -> None:
    torch.testing.assert_close(compute_neighbours(draw(5, 3)).sum(dim=1), torch.ones(5).double())


def test_rotation_and_lengths_are_ignored() -> None:
    features = draw(5, 3)
    changed = rotate(features) * (1 + draw(5, 1, seed=1).abs())
    torch.testing.assert_close(compute_neighbours(changed), compute_neighbours(features))
    assert compute_pkt(changed, features).item() == pytest.approx(0, abs=1e-12)
