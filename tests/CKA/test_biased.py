from __future__ import annotations

import pytest
import torch

from CKA.biased import compute_biased_linear_cka
from CKA.cka import compute_linear_cka


@pytest.mark.parametrize("shape", [(20, 5, 3), (200, 7, 40)])
def test_biased_cka_is_that_of_centred_gram_matrices(shape) -> None:
    n, d1, d2 = shape
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(n, d1, generator=generator, dtype=torch.float64)
    Y = X[:, :1] + torch.randn(n, d2, generator=generator, dtype=torch.float64)
    H = torch.eye(n, dtype=torch.float64) - 1 / n
    K, L = H @ X @ X.T @ H, H @ Y @ Y.T @ H
    expected = (K * L).sum() / ((K * K).sum() * (L * L).sum()).sqrt()
    found = compute_biased_linear_cka(X, Y)
    assert found == pytest.approx(expected.item()) and found > compute_linear_cka(X, Y).value
    assert compute_biased_linear_cka(X, 3 * X + 1) == pytest.approx(1)


def test_features_that_do_not_vary_have_no_cka() -> None:
    X = torch.randn(8, 3)
    assert compute_biased_linear_cka(X, torch.ones(8, 2)) is None
    assert compute_biased_linear_cka(X, torch.full((8, 2), torch.nan)) is None
