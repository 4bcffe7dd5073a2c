from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch import Tensor

from losses.ce import CE, compute_cross_entropy
from losses.loss import Samples, Sizes, View

LABELS = torch.tensor([0, 2, 1, 4, 4, 3])
WEIGHTS = torch.tensor([3.0, 0.0, 0.5, 1.0, 0.25, 2.0])
LOGITS = 3 * torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
LOG_SHARES = log_softmax(LOGITS.double().numpy(), axis=1)


def compute_ce(
    loss: CE, targets: Tensor = LABELS, weights: Tensor | None = None, logits: Tensor = LOGITS
) -> Tensor:
    """The loss of a student's logits, whatever the teacher says."""
    nothing = View(torch.full_like(logits, torch.nan), {})
    return loss(View(logits, {}), nothing, Samples(torch.arange(6), LABELS, targets, weights))


def test_cross_entropy_by_hand() -> None:
    logits = torch.tensor([[3.0, 1.0], [1.0, 1.0]]).log()  # shares 3/4 and 1/2 of the first class
    found = compute_cross_entropy(logits, torch.tensor([1, 0]))
    assert found.item() == pytest.approx((np.log(4) + np.log(2)) / 2)
    smoothed = compute_cross_entropy(logits[:1], torch.tensor([0]), smoothing=0.5)  # label 3/4 and 1/4
    assert smoothed.item() == pytest.approx(0.75 * np.log(4 / 3) + 0.25 * np.log(4))


def test_equals_scipys_log_softmax_of_the_label() -> None:
    expected = -LOG_SHARES[np.arange(6), LABELS].mean()
    assert compute_cross_entropy(LOGITS, LABELS).item() == pytest.approx(expected, rel=1e-5)
    assert compute_ce(CE()).item() == compute_cross_entropy(LOGITS, LABELS).item()


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_weighted_terms_are_a_loop_over_images(smoothing: float) -> None:
    expected = 0.0
    for image, weight in enumerate(WEIGHTS.tolist()):
        for number in range(5):
            share = (1 - smoothing) * (number == LABELS[image].item()) + smoothing / 5
            expected -= weight * share * LOG_SHARES[image, number] / 6
    found = compute_ce(CE(label_smoothing=smoothing), weights=WEIGHTS)
    assert found.item() == pytest.approx(expected, rel=1e-5)
    alike = compute_ce(CE(label_smoothing=smoothing), weights=torch.ones(6))
    assert alike.item() == pytest.approx(compute_ce(CE(label_smoothing=smoothing)).item(), rel=1e-6)


def test_a_prior_adds_log_shares_of_the_classes_while_training() -> None:
    labels = torch.tensor([0] * 6 + [1] * 3 + [2, 3, 4])
    shares = np.array([6, 3, 1, 1, 1]) / 12
    for factor in (1.0, 0.5):
        loss = CE(prior=factor)
        loss.setup(Sizes({}, {}, labels))
        adjusted = np.exp(LOGITS.double().numpy()) * shares**factor  # balanced softmax: n_c e^z / Σ n e^z
        expected = -np.log(adjusted[np.arange(6), LABELS] / adjusted.sum(axis=1)).mean()
        assert compute_ce(loss).item() == pytest.approx(expected, rel=1e-5)
    assert not CE(prior=1.0).state_dict() and not loss.state_dict()  # a checkpoint holds nothing of it


def test_labels_may_be_shares_of_classes() -> None:
    shares = 0.3 * torch.eye(5)[LABELS] + 0.7 * torch.eye(5)[LABELS.flip(0)]
    for weights in (None, WEIGHTS):
        own, other = (compute_cross_entropy(LOGITS, labels, weights) for labels in (LABELS, LABELS.flip(0)))
        expected = (0.3 * own + 0.7 * other).item()
        assert compute_ce(CE(), shares, weights).item() == pytest.approx(expected)


def test_gradient_is_share_minus_label() -> None:
    logits = LOGITS.double().requires_grad_()
    compute_cross_entropy(logits, LABELS, WEIGHTS.double()).backward()
    expected = WEIGHTS.double()[:, None] * (LOGITS.double().softmax(dim=1) - torch.eye(5)[LABELS]) / 6
    torch.testing.assert_close(logits.grad, expected)


def test_gradcheck() -> None:
    logits = LOGITS.double().requires_grad_()
    for weights in (None, WEIGHTS.double()):
        assert torch.autograd.gradcheck(
            lambda one, weights=weights: compute_cross_entropy(one, LABELS, weights, 0.2), (logits,)
        )


def test_half_precision_logits_are_summed_in_float32() -> None:
    found = compute_ce(CE(), logits=LOGITS.bfloat16())
    assert found.dtype == torch.float32
    assert found.item() == compute_ce(CE(), logits=LOGITS.bfloat16().float()).item()


def test_only_labels_and_the_students_logits_count() -> None:
    assert (CE.needs_labels, CE.needs_logits, CE.needs_teacher) == (True, True, False)
