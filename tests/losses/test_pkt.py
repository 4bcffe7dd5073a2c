from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from losses.pkt import PKT, compute_neighbours, pkt
from tests.losses.batches import SIZES, make_batch
from tests.losses.literals import STUDENT, TEACHER, draw, rotate


def measure_neighbour(features: NDArray[np.float64], i: int, j: int) -> float:
    def near(k: int) -> float:
        lengths = np.linalg.norm(features[i]) * np.linalg.norm(features[k])
        return float((features[i] @ features[k] / lengths + 1) / 2)

    return near(j) / sum(near(k) for k in range(len(features)))


def test_literal() -> None:
    assert pkt(STUDENT, TEACHER).item() == pytest.approx(
        0.0006261550, rel=5e-7
    )  # it has an epsilon beside lengths


def test_loss_is_a_loop_over_pairs() -> None:
    student, teacher = draw(5, 3).numpy(), draw(5, 4, seed=1).numpy()
    expected = 0.0
    for i in range(5):
        for j in range(5):
            q, p = measure_neighbour(student, i, j), measure_neighbour(teacher, i, j)
            expected += p * np.log((p + 1e-7) / (q + 1e-7)) / 25
    assert pkt(torch.tensor(student), torch.tensor(teacher)).item() == pytest.approx(expected, rel=1e-10)


def test_rows_sum_to_1() -> None:
    torch.testing.assert_close(compute_neighbours(draw(5, 3)).sum(dim=1), torch.ones(5).double())


def test_rotation_and_lengths_are_ignored() -> None:
    features = draw(5, 3)
    changed = rotate(features) * (1 + draw(5, 1, seed=1).abs())
    torch.testing.assert_close(compute_neighbours(changed), compute_neighbours(features))
    assert pkt(changed, features).item() == pytest.approx(0, abs=1e-12)


def test_opposite_features_stay_finite() -> None:
    student = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
    loss = pkt(student, torch.eye(2))
    loss.backward()
    assert loss.isfinite() and student.grad.isfinite().all()


def test_gradients_agree_with_differences() -> None:
    def of(student: Tensor) -> Tensor:
        return pkt(student, draw(4, 2, seed=1))

    assert torch.autograd.gradcheck(of, draw(4, 3).requires_grad_())


def test_module_is_the_function_of_its_options() -> None:
    student, teacher, _ = batch = make_batch(0)
    for loss, taps in ((PKT(), ["last"]), (PKT({"penultimate": 1.0, "last": 2.0}), ["penultimate", "last"])):
        loss.setup(SIZES)
        found = loss(*batch)
        assert list(found) == taps
        for tap, term in found.items():
            torch.testing.assert_close(term, pkt(student.taps[tap], teacher.taps[tap]))
