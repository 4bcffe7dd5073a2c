from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from losses.fitnet import FitNet, compute_fitnet, make_regressor
from losses.loss import Sizes, View
from losses.maps import pool_to
from tests.losses.batches import SIZES, make_batch
from tests.losses.literals import MAP, draw


def test_loss_by_hand() -> None:
    assert compute_fitnet(MAP, MAP + 0.5).item() == pytest.approx(0.25)
    assert compute_fitnet(MAP, MAP + 0.5, torch.tensor([3.0, 0.0, 1.5]).double()).item() == pytest.approx(
        0.25 * 1.5
    )


@pytest.mark.parametrize("weighted", [False, True])
def test_loss_is_a_loop_over_entries(weighted: bool) -> None:
    student, teacher = draw(3, 2, 2, 2), draw(3, 2, 2, 2, seed=1)
    weights = torch.linspace(0, 2, 3).double() if weighted else None
    expected = 0.0
    for image in range(3):
        for own, other in zip(student[image].flatten().tolist(), teacher[image].flatten().tolist(), strict=True):
            expected += (weights[image].item() if weighted else 1) * (own - other) ** 2 / 24
    assert compute_fitnet(student, teacher, weights).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(
    ("side", "target", "kernel", "made"),
    [(4, 4, 1, 4), (8, 4, 3, 4), (4, 8, 4, 8), (7, 5, 3, 5), (16, 4, 13, 4), (5, 7, 1, 5)],
)
def test_regressor_gives_the_teachers_shape(side: int, target: int, kernel: int, made: int) -> None:
    regressor = make_regressor((3, side, side), (5, target, target))
    assert regressor[0].kernel_size == (kernel, kernel)
    found = regressor(torch.randn(2, 3, side, side))
    assert found.shape == (2, 5, made, made) and found.min() == 0


def test_larger_teacher_is_pooled() -> None:
    """Where no stride fits, as for sides 2 and 3."""
    loss = FitNet()
    loss.setup(Sizes({"stage2": (3, 2, 2)}, {"stage2": (4, 3, 3)}))
    student, teacher = draw(2, 3, 2, 2).float(), draw(2, 4, 3, 3, seed=1).float()
    views = [View(torch.empty(0), {}, {"stage2": maps}) for maps in (student, teacher)]
    expected = F.mse_loss(loss.regressor["stage2"](student), pool_to(teacher, 2))
    torch.testing.assert_close(loss(*views, make_batch(0, count=2).samples)["stage2"], expected)


def test_module_is_the_function_behind_its_regressor() -> None:
    student, teacher, samples = batch = make_batch(0, weighted=True)
    for loss, taps in ((FitNet(), ["stage2"]), (FitNet({"stage1": 1.0, "stage2": 2.0}), ["stage1", "stage2"])):
        loss.setup(SIZES)
        found = loss(*batch)
        assert list(found) == taps
        for tap, term in found.items():
            own = loss.regressor[tap](student.maps[tap])
            torch.testing.assert_close(term, compute_fitnet(own, teacher.maps[tap], samples.weights))
