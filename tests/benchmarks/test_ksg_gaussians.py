from __future__ import annotations

import numpy as np
import pytest

from benchmarks import ksg_gaussians


def test_columns_of_one_number_are_correlated_and_others_are_not() -> None:
    X, Y = ksg_gaussians.gaussians(0.9, 2, 20_000, seed=0)
    correlations = np.corrcoef(X.T, Y.T)[:2, 2:]
    np.testing.assert_allclose(correlations, 0.9 * np.eye(2), atol=0.03)


def test_the_table_sets_estimates_beside_the_closed_form(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["ksg_gaussians"])
    monkeypatch.setattr(ksg_gaussians, "ksg", lambda X, Y, k, variant: float(variant))
    ksg_gaussians.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 3 * 4 * 3
    rho, dims, n, closed, one, error, *_ = map(float, lines[-1].split())
    assert (rho, dims, n, one) == (0.9, 10, 5000, 1.0)
    assert closed == pytest.approx(-5 * np.log(1 - 0.81), abs=1e-3) and error == pytest.approx(
        1 - closed, abs=2e-3
    )
