from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from losses.rkd import compute_relations, compute_rkd
from tests.losses.literals import draw, rotate


def compute_huber(difference: float) -> float:
    return difference**2 / 2 if abs(difference) < 1 else abs(difference) - 0.5


def measure_distance(features: NDArray[np.float64], i: int, j: int) -> float:
    count = len(features)
    pairs = [(a, b) for a in range(count) for b in range(count) if a != b]
    mean = np.mean([np.linalg.norm(features[a] - features[b]) for a, b in pairs])
    return float(np.linalg.norm(features[i] - features[j]) / mean)


def measure_angle(features: NDArray[np.float64], i: int, j: int, k: int) -> float:
    if j in (i, k):
        return 0.0
    first, second = features[i] - features[j], features[k] - features[j]
    return float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))


def test_loss_is_loops_over_pairs_and_triples() -> None:
    student, teacher = draw(5, 3).numpy(), 2 * draw(5, 4, seed=1).numpy()
    distances = [
        compute_huber(measure_distance(student, *pair) - measure_distance(teacher, *pair))
        for pair in product(range(5), repeat=2)
    ]
    angles = [
        compute_huber(measure_angle(student, *three) - measure_angle(teacher, *three))
        for three in product(range(5), repeat=3)
    ]
    found = compute_rkd(torch.tensor(student), torch.tensor(teacher), 2, 3).item()
    assert found == pytest.approx(2 * np.mean(distances) + 3 * np.mean(angles), rel=1e-10)


def test_shift_rotation_and_scale_are_ignored() -> None:
    features = draw(5, 3)
    for found, expected in zip(
        compute_relations(7 * rotate(features) + draw(1, 3, seed=1)), compute_relations(features), strict=True
    ):
        torch.testing.assert_close(found, expected)
    assert compute_rkd(features, 7 * rotate(features) + 5, 25, 50).item() == pytest.approx(0, abs=1e-12)


def test_angles_are_cosines_at_the_first_index() -> None:
    _, angles = compute_relations(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]]))
    assert angles[0, 1, 2].item() == 0 and angles[0, 1, 1].item() == 1
    assert angles[1, 0, 2].item() == pytest.approx(1 / 5**0.5)
