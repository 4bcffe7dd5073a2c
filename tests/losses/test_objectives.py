from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from losses.objectives import BinaryNCE, InfoNCE, LossAndGrad, Objective


def compute_blockwise(
    objective: Objective, positives: Tensor, negatives: Tensor, size: int
) -> tuple[LossAndGrad, Tensor]:
    """An objective that has taken (B, L) scores, so many columns at a time, and the slope of each (B, L)."""
    objective.reset(len(negatives), torch.empty(len(negatives), size, dtype=negatives.dtype))
    weights: list[Tensor] = []
    for scores in negatives.clone().split(size, dim=1):
        factor = objective.update(scores, slice(0, len(negatives)))
        if factor is not None:
            weights = [weight * factor[:, None] for weight in weights]
        weights.append(scores)
    found = objective.finalize(positives)
    assert found.rows.shape == (1, len(positives))
    return found, found.rows[0, :, None] * torch.cat(weights, dim=1)


def test_nce_by_hand() -> None:
    # Z = 2, K/N = 2/4: p = (2, 1/2, 3/2), h = (4/5, 1/2, 3/4), loss = -log(4/5 * 1/2 * 1/4) = log 10
    similarities = torch.tensor([[4.0, 1.0, 3.0]], dtype=torch.float64).log()
    objective = BinaryNCE(torch.tensor(2.0).log(), 2, 4)
    found, slopes = compute_blockwise(objective, similarities[:, 0], similarities[:, 1:], 1)
    assert found.loss.item() == pytest.approx(math.log(10))
    assert found.positives.tolist() == pytest.approx([-1 / 5]) and slopes[0].tolist() == pytest.approx(
        [1 / 2, 3 / 4]
    )
    found, _ = compute_blockwise(
        BinaryNCE(torch.zeros(()), 1, 1), torch.zeros(1), torch.tensor([[400.0, -torch.inf]]), 2
    )
    assert found.loss.item() == pytest.approx(400 + math.log(2))


def test_infonce_by_hand() -> None:
    similarities = torch.tensor([[2.0, 1.0, 5.0], [1.0, 1.0, 2.0]], dtype=torch.float64).log()
    found, slopes = compute_blockwise(InfoNCE(), similarities[:, 0], similarities[:, 1:], 1)
    assert found.loss.item() == pytest.approx(math.log(4))  # both positives have a share of 1/4
    assert found.positives.tolist() == pytest.approx([-3 / 8] * 2)
    assert slopes.flatten().tolist() == pytest.approx([1 / 16, 5 / 16, 1 / 8, 1 / 4])
    found, _ = compute_blockwise(InfoNCE(), torch.zeros(1), torch.tensor([[1000.0, -torch.inf]]), 2)
    assert found.loss.item() == 1000.0


@pytest.mark.parametrize("size", [5, 40, 1001])
@pytest.mark.parametrize(("mean", "spread"), [(-9.0, 1.0), (0.0, 3.0), (80.0, 9.0), (-80.0, 9.0)])
@pytest.mark.parametrize("objective", ["nce", "infonce"])
def test_blocks_add_up_to_the_formula(objective: str, mean: float, spread: float, size: int) -> None:
    """In float32, whatever the size of the terms, against autograd of softplus and logsumexp in float64."""
    torch.manual_seed(0)
    scores = mean + spread * torch.randn(3, 1002)
    scores[1, 1:50] = -torch.inf  # all of some blocks
    exact = scores.double().requires_grad_()
    if objective == "nce":
        of_negatives = torch.nn.functional.softplus(exact[:, 1:]).sum(dim=1)
        expected = (torch.nn.functional.softplus(-exact[:, 0]) + of_negatives).mean()
    else:
        expected = (exact.logsumexp(dim=1) - exact[:, 0]).mean()
    expected.backward()
    new = BinaryNCE(torch.zeros(()), 8, 8) if objective == "nce" else InfoNCE()
    found, slopes = compute_blockwise(new, scores[:, 0], scores[:, 1:], size)
    torch.testing.assert_close(found.loss.double(), expected.detach(), rtol=1e-6, atol=0)
    gradient = torch.cat([found.positives[:, None], slopes], dim=1)
    torch.testing.assert_close(gradient.double(), exact.grad, rtol=1e-4, atol=1e-9)


def test_small_terms_lose_nothing_and_none_cancel() -> None:
    for logit in (-40.0, 0.0):
        negatives = torch.full((2, 400), logit)
        found, _ = compute_blockwise(BinaryNCE(torch.zeros(()), 8, 8), torch.full((2,), 99.0), negatives, 10)
        assert found.loss.item() == pytest.approx(400 * math.log1p(math.exp(logit)), rel=1e-6)
