from __future__ import annotations

import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy

from losses.dkd import compute_dkd
from losses.kl import compute_softened_kl
from tests.losses.literals import draw

TARGETS = torch.tensor([0, 4, 2, 2, 1, 3])


@pytest.mark.parametrize("weighted", [False, True])
def test_loss_is_a_loop_over_images(weighted: bool) -> None:
    student, teacher = 3 * draw(6, 5), 3 * draw(6, 5, seed=1)
    weights = torch.linspace(0, 2, 6).double() if weighted else None
    expected = 0.0
    for image, label in enumerate(TARGETS.tolist()):
        p, q = (softmax(logits[image].numpy() / 2) for logits in (teacher, student))
        others = [c for c in range(5) if c != label]
        target = entropy([p[label], 1 - p[label]], [q[label], 1 - q[label]])
        rest = entropy(p[others] / p[others].sum(), q[others] / q[others].sum())
        expected += (weights[image].item() if weighted else 1) * 4 * (0.5 * target + 3 * rest) / 6
    assert compute_dkd(student, teacher, TARGETS, 0.5, 3, 2, weights).item() == pytest.approx(expected, rel=1e-10)


def test_kl_is_a_weighted_sum_of_both_terms() -> None:
    student, teacher = 3 * draw(6, 5), 3 * draw(6, 5, seed=1)
    for image, label in enumerate(TARGETS.tolist()):
        one = student[[image]], teacher[[image]]
        rest = 1 - (teacher[image] / 4).softmax(dim=0)[label].item()
        found = compute_dkd(*one, TARGETS[[image]], 1, rest, 4).item()
        assert found == pytest.approx(compute_softened_kl(*one, 4).item(), rel=1e-5)
