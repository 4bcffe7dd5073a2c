from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from losses.cc import CC, compute_cc
from tests.losses.batches import SIZES, make_batch
from tests.losses.literals import draw


@pytest.fixture
def loss() -> CC:
    torch.manual_seed(0)
    made = CC({"last": 1.0, "penultimate": 0.5}, 2)
    made.setup(SIZES)
    return made


def test_loss_is_a_loop_over_neighbours() -> None:
    student, teacher = draw(5, 3).tolist(), draw(5, 3, seed=1).tolist()
    expected = 0.0
    for i in range(4):
        for d in range(3):
            expected += abs(student[i][d] - teacher[i][d]) * abs(student[i + 1][d] - teacher[i + 1][d]) / 4
    assert compute_cc(draw(5, 3), draw(5, 3, seed=1)).item() == pytest.approx(expected, rel=1e-10)


def test_neighbours_are_those_of_the_batch() -> None:
    student, teacher = draw(5, 3), draw(5, 3, seed=1)
    expected = compute_cc(student, teacher).item()
    assert compute_cc(student.flip(0), teacher.flip(0)).item() == pytest.approx(expected, rel=1e-10)
    order = torch.tensor([2, 0, 4, 1, 3])
    assert compute_cc(student[order], teacher[order]).item() != pytest.approx(expected, rel=0.01)


def test_signs_and_common_shifts_are_ignored() -> None:
    student, teacher, shift = draw(5, 3), draw(5, 3, seed=1), draw(5, 3, seed=2)
    torch.testing.assert_close(compute_cc(teacher + shift, student + shift), compute_cc(student, teacher))


def test_one_image_has_no_neighbour() -> None:
    assert compute_cc(draw(1, 3), draw(1, 3, seed=1)).item() == 0


def test_module_is_the_function_of_projected_features(loss: CC) -> None:
    student, teacher, _ = batch = make_batch(0)
    found, maps = loss(*batch), loss.list_projections()
    assert list(found) == ["last", "penultimate"] and CC().dim == 128 and list(CC().taps) == ["last"]
    for tap, term in found.items():
        own, other = (
            F.linear(view.taps[tap], maps[f"{tap}.{side}.weight"], maps[f"{tap}.{side}.bias"])
            for side, view in (("student", student), ("teacher", teacher))
        )
        torch.testing.assert_close(term, compute_cc(own, other))
        found_cosine = loss.compare(student, teacher)[f"cosine_{tap}"]
        assert found_cosine == pytest.approx(F.cosine_similarity(own, other).mean().item(), rel=1e-5)
