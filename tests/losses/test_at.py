from __future__ import annotations

import numpy as np
import pytest
import torch

from losses.at import compute_at, compute_attention
from tests.losses.literals import TEACHER_MAP, draw


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
    found = compute_at(torch.tensor(student), torch.tensor(teacher), weights)
    assert found.item() == pytest.approx(expected, rel=1e-10)


def test_order_scale_and_sign_of_channels_are_ignored() -> None:
    maps = draw(3, 4, 2, 2)
    changed = -7 * maps[:, [2, 0, 3, 1]]
    torch.testing.assert_close(compute_attention(changed), compute_attention(maps))
    torch.testing.assert_close(compute_at(changed, TEACHER_MAP), compute_at(maps, TEACHER_MAP))
