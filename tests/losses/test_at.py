from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from losses.at import AT, at, compute_attention
from losses.maps import pool_to
from tests.losses.batches import make_batch
from tests.losses.literals import MAP, TEACHER_MAP, draw


def test_literal() -> None:
    assert at(MAP, TEACHER_MAP).item() == pytest.approx(0.0394010833, abs=1e-10)


@pytest.mark.parametrize("weighted", [False, True])
def test_loss_is_a_loop_over_places(weighted: bool) -> None:
    student, teacher = draw(3, 2, 4, 4).numpy(), draw(3, 5, 4, 4, seed=1).numpy()
    weights = torch.linspace(0, 2, 3).double() if weighted else None
    expected = 0.0
    for image in range(3):
        attentions = []
        for maps in (student, teacher):
            places = [np.mean(maps[image, :, row, column] ** 2) for row in range(4) for column in range(4)]
            attentions.append(np.array(places) / np.sqrt(sum(place**2 for place in places)))
        squared = sum((attentions[0] - attentions[1]) ** 2)
        expected += (weights[image].item() if weighted else 1) * squared / (3 * 16)
    found = at(torch.tensor(student), torch.tensor(teacher), weights)
    assert found.item() == pytest.approx(expected, rel=1e-10)


def test_order_scale_and_sign_of_channels_are_ignored() -> None:
    maps = draw(3, 4, 2, 2)
    changed = -7 * maps[:, [2, 0, 3, 1]]
    torch.testing.assert_close(compute_attention(changed), compute_attention(maps))
    torch.testing.assert_close(at(changed, TEACHER_MAP), at(maps, TEACHER_MAP))


def test_empty_maps_have_finite_gradients() -> None:
    maps = torch.zeros(2, 3, 2, 2, requires_grad=True)
    at(maps, torch.rand(2, 3, 2, 2)).backward()
    assert maps.grad.isfinite().all()


def test_gradients_agree_with_differences() -> None:
    weights = torch.linspace(0, 2, 3).double()

    def of(student: Tensor) -> Tensor:
        return at(student, TEACHER_MAP, weights)

    assert torch.autograd.gradcheck(of, draw(3, 2, 2, 2).requires_grad_())


def test_module_is_the_function_of_its_stages() -> None:
    student, teacher, samples = batch = make_batch(0, weighted=True)
    found = AT()(*batch)
    assert list(found) == ["stage1", "stage2", "stage3"] and list(AT({"stage1": 2.0})(*batch)) == ["stage1"]
    for tap in ("stage1", "stage3"):
        torch.testing.assert_close(found[tap], at(student.maps[tap], teacher.maps[tap], samples.weights))
    pooled = pool_to(teacher.maps["stage2"], 2)  # 4 x 4, the student's is 2 x 2
    torch.testing.assert_close(found["stage2"], at(student.maps["stage2"], pooled, samples.weights))
