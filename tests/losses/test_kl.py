from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from scipy.stats import entropy
from torch import Tensor

from losses.ce import CE
from losses.dkd import compute_dkd
from losses.kl import KL, compute_softened_kl, standardise
from losses.loss import Samples, View
from tests.losses.literals import Z_STUDENT, Z_TEACHER, draw

LABELS = torch.tensor([0, 2, 1, 4, 4, 3])


def draw_logits(seed: int) -> Tensor:
    """Logits (6, 5) without a common part, as Hinton et al.'s approximation for large T assumes."""
    values = 3 * torch.randn(6, 5, generator=torch.Generator().manual_seed(seed))
    return values - values.mean(dim=1, keepdim=True)


def compute_distillation(
    student: Tensor,
    teacher: Tensor,
    temperature: float = 4.0,
    alpha: float = 0.9,
    weights: Tensor | None = None,
) -> Tensor:
    """Return the loss of a stage with both losses."""
    given = View(student, {}), View(teacher, {}), Samples(torch.arange(6), LABELS, LABELS, weights)
    return alpha * KL(temperature)(*given) + (1 - alpha) * CE()(*given)


def compute_gradient(temperature: float) -> Tensor:
    student = draw_logits(0).requires_grad_()
    compute_softened_kl(student, draw_logits(1), temperature).backward()
    return student.grad


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_kl_is_scipys_entropy_times_squared_temperature(temperature: float) -> None:
    student, teacher = (softmax(draw_logits(seed).double().numpy() / temperature, axis=1) for seed in (0, 1))
    expected = temperature**2 * entropy(teacher, student, axis=1).mean()
    assert compute_softened_kl(draw_logits(0), draw_logits(1), temperature).item() == pytest.approx(
        expected, rel=1e-5
    )


def test_kl_by_hand() -> None:
    teacher, student = torch.tensor([[3.0, 1.0]]).log(), torch.tensor([[1.0, 1.0]]).log()
    expected = 0.75 * np.log(0.75 / 0.5) + 0.25 * np.log(0.25 / 0.5)
    assert compute_softened_kl(student, teacher, 1.0).item() == pytest.approx(expected)
    assert compute_softened_kl(teacher, teacher, 4.0).item() == 0.0


def test_loss_mixes_kl_and_cross_entropy() -> None:
    kl = compute_softened_kl(draw_logits(0), draw_logits(1), 4.0).item()
    cross_entropy = -log_softmax(draw_logits(0).double().numpy(), axis=1)[np.arange(6), LABELS].mean()
    assert compute_distillation(draw_logits(0), draw_logits(1), 4.0, alpha=1.0).item() == kl
    for alpha in (0.0, 0.9):
        expected = alpha * kl + (1 - alpha) * cross_entropy
        actual = compute_distillation(draw_logits(0), draw_logits(1), 4.0, alpha).item()
        assert actual == pytest.approx(expected, rel=1e-5)


def test_weighted_terms_are_a_loop_over_images() -> None:
    weights = torch.tensor([3.0, 0.0, 0.5, 1.0, 0.25, 2.0])
    found = compute_distillation(draw_logits(0), draw_logits(1), 2.0, 1.0, weights)
    teacher, student = (softmax(draw_logits(seed).double().numpy() / 2, axis=1) for seed in (1, 0))
    kl = sum(w * 4 * entropy(teacher[i], student[i]) for i, w in enumerate(weights.tolist())) / 6
    assert found.item() == pytest.approx(kl, rel=1e-5)
    assert compute_softened_kl(draw_logits(0), draw_logits(1), 2.0, weights).item() == found.item()


def test_no_gradient_reaches_the_teacher() -> None:
    student, teacher = draw_logits(0).requires_grad_(), draw_logits(1).requires_grad_()
    compute_distillation(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def test_gradient_for_large_temperatures_matches_logits() -> None:
    """The gradient tends to (student − teacher) / C for centred logits (Hinton et al., Eq. 4)."""
    expected = (draw_logits(0) - draw_logits(1)) / (5 * 6)  # mean over 6 images
    torch.testing.assert_close(compute_gradient(1000.0), expected, rtol=0.02, atol=2e-4)
    assert compute_gradient(20.0).norm().item() == pytest.approx(compute_gradient(200.0).norm().item(), rel=0.1)


def test_gradient_equals_the_closed_form() -> None:
    temperature = 4.0
    student, teacher = ((draw_logits(seed).double() / temperature).softmax(dim=1) for seed in (0, 1))
    expected = temperature * (student - teacher) / 6  # T² · (1/T) · (q − p), mean over 6 images
    torch.testing.assert_close(compute_gradient(temperature).double(), expected, rtol=1e-5, atol=1e-6)


def test_gradcheck_of_the_mixed_loss() -> None:
    student, teacher = draw_logits(0).double().requires_grad_(), draw_logits(1).double()

    def compute(student: Tensor) -> Tensor:
        return compute_distillation(student, teacher, 4.0, 0.7)

    # the softmax is taken in float32, so the step is coarse and the bound is that of the finite difference
    assert torch.autograd.gradcheck(compute, (student,), eps=1e-2, atol=1e-3, rtol=1e-3)


def compute_in_float64(
    monkeypatch: pytest.MonkeyPatch, student: Tensor, teacher: Tensor, *options: object
) -> float:
    """The module's loss, which rounds to float32 where this does not forbid it."""
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    none = torch.empty(0)
    return KL(*options)(View(student, {}), View(teacher, {}), Samples(none, none, none)).item()


def test_literals(monkeypatch: pytest.MonkeyPatch) -> None:
    found = compute_in_float64(monkeypatch, Z_STUDENT, Z_TEACHER, 4.0)
    assert found == pytest.approx(1.3396689606, abs=1e-10)
    standardised = compute_in_float64(monkeypatch, Z_STUDENT, Z_TEACHER, 2.0, True)
    assert standardised == pytest.approx(1.1533751802, abs=1e-10)


def test_standardised_logits_are_a_loop_over_images() -> None:
    found = standardise(draw(4, 5))
    for row, given in zip(found, draw(4, 5).numpy(), strict=True):
        expected = (given - given.mean()) / (given.std(ddof=1) + 1e-7)
        np.testing.assert_allclose(row.numpy(), expected, rtol=1e-12)


def test_standardised_kl_ignores_scale_and_shift(monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher = draw(6, 5), draw(6, 5, seed=1)
    expected = compute_in_float64(monkeypatch, student, teacher, 2.0, True)
    changed = 7 * student + draw(6, 1, seed=2), 0.3 * teacher - 5
    assert compute_in_float64(monkeypatch, *changed, 2.0, True) == pytest.approx(expected, rel=1e-5)
    assert compute_in_float64(monkeypatch, *changed, 2.0) != pytest.approx(expected, rel=0.1)


def test_standardised_logits_have_gradients() -> None:
    assert torch.autograd.gradcheck(standardise, draw(3, 4).requires_grad_())
    constant = torch.zeros(2, 4, requires_grad=True)  # of a classifier whose weights are zero
    standardise(constant).sum().backward()
    assert torch.equal(constant.grad, torch.zeros(2, 4))


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_temperatures_out_of_range_are_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="need temperature > 0"):
        compute_softened_kl(draw_logits(0), draw_logits(1), temperature)


@pytest.mark.parametrize("temperature", [20.0, 1000.0, 1e5])
def test_large_temperatures_approach_squared_differences(temperature: float) -> None:
    """T² KL tends to half the variance of the difference of logits (Hinton et al. 2015, Sec. 2.1)."""
    generator = torch.Generator().manual_seed(0)
    own, other = (3 * torch.randn(8, 100, generator=generator) for _ in range(2))
    expected = ((own - other).double().var(dim=1, correction=0) / 2).mean().item()
    found = compute_softened_kl(own, other, temperature)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected, rel=6 / temperature + 1e-4)
    labels = torch.arange(8)
    exact = compute_dkd(own.double(), other.double(), labels, 1.0, 8.0, temperature).item()
    assert compute_dkd(own, other, labels, 1.0, 8.0, temperature).item() == pytest.approx(exact, rel=1e-4)
