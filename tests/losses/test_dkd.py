from __future__ import annotations

import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy
from torch import Tensor

from losses.dkd import DKD, dkd
from losses.kl import softened_kl, standardise
from tests.losses.batches import make_batch
from tests.losses.literals import LABELS, Z_STUDENT, Z_TEACHER, draw

TARGETS = torch.tensor([0, 4, 2, 2, 1, 3])


def test_literals() -> None:
    assert dkd(Z_STUDENT, Z_TEACHER, LABELS, 1, 8, 4).item() == pytest.approx(2.8897417813, abs=1e-10)
    standardised = dkd(standardise(Z_STUDENT), standardise(Z_TEACHER), LABELS, 1, 8, 2)
    assert standardised.item() == pytest.approx(2.9183449909, abs=1e-10)


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
    assert dkd(student, teacher, TARGETS, 0.5, 3, 2, weights).item() == pytest.approx(expected, rel=1e-10)


def test_kl_is_the_labels_term_and_a_share_of_the_rest() -> None:
    student, teacher = 3 * draw(6, 5), 3 * draw(6, 5, seed=1)
    for image, label in enumerate(TARGETS.tolist()):
        one = student[[image]], teacher[[image]]
        rest = 1 - (teacher[image] / 4).softmax(dim=0)[label].item()
        found = dkd(*one, TARGETS[[image]], 1, rest, 4).item()
        assert found == pytest.approx(softened_kl(*one, 4).item(), rel=1e-5)


def test_gradients_agree_with_differences() -> None:
    teacher, weights = draw(6, 5, seed=1), torch.linspace(0, 2, 6).double()

    def of(student: Tensor) -> Tensor:
        return dkd(student, teacher, TARGETS, 1, 8, 2, weights)

    assert torch.autograd.gradcheck(of, draw(6, 5).requires_grad_())


def test_certain_answers_stay_finite() -> None:
    student = torch.tensor([[300.0, 0, -300], [-300, 0, 300]], requires_grad=True)
    loss = dkd(student, torch.tensor([[-300.0, 300, 0], [300, 0, -300]]), torch.tensor([0, 1]), 1, 8, 1)
    loss.backward()
    assert loss.isfinite() and student.grad.isfinite().all()


def test_module_is_the_function_of_its_options() -> None:
    student, teacher, samples = batch = make_batch(0, weighted=True)
    given = samples.labels, 0.5, 3.0, 2.0, samples.weights
    torch.testing.assert_close(DKD(0.5, 3.0, 2.0)(*batch), dkd(student.logits, teacher.logits, *given))
    logits = standardise(student.logits), standardise(teacher.logits)
    torch.testing.assert_close(DKD(0.5, 3.0, 2.0, standardise=True)(*batch), dkd(*logits, *given))
    torch.testing.assert_close(DKD()(*batch), DKD(1.0, 8.0, 4.0)(*batch))
