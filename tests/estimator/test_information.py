"""Of estimator/information.py, and estimator/bounds.py."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from estimator import (
    MutualInformation,
    compute_nce_bound,
    compute_subsample_interval,
    estimate_ksg,
    estimate_label_information,
    estimate_mutual_information,
    estimate_ross,
    reduce_dimensions,
)


def draw_gaussians(rho: float, dims: int, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    X, noise = np.random.default_rng(seed).standard_normal((2, n, dims))
    return X, rho * X + math.sqrt(1 - rho**2) * noise


def convert_to_json(result: MutualInformation) -> dict[str, object]:
    return json.loads(json.dumps(dataclasses.asdict(result), allow_nan=False))


def test_low_dimensions_pass_through_and_hold_truth() -> None:
    X, Y = draw_gaussians(0.6, 2, 1000)
    result = estimate_mutual_information(X, Y, variant=2)
    assert result.value == estimate_ksg(X, Y, variant=2)
    assert result.low < -math.log(1 - 0.6**2) < result.high
    assert convert_to_json(result)["variance_kept_x"] == 1.0 and result.notes == {}
    assert (result.dims_x, result.dims_y, result.n, result.unit, result.k) == (2, 2, 1000, "nats", 3)


def test_many_columns_are_reduced_and_noted() -> None:
    X, Y = draw_gaussians(0.9, 2, 400)
    wide = np.hstack([X, 1e-3 * np.random.default_rng(9).standard_normal((400, 30))])
    result = estimate_mutual_information(wide, Y, max_dims=2)
    assert (result.dims_x, result.dims_y) == (2, 2)
    assert 0.999 < result.variance_kept_x < 1 and result.variance_kept_y == 1.0
    assert "32 columns" in result.notes["dims_x"]
    assert result.value == pytest.approx(estimate_ksg(X, Y), abs=0.1)


def test_reduction_keeps_the_leading_components() -> None:
    X = np.random.default_rng(0).standard_normal((50, 6)) * [5, 4, 3, 0.1, 0.1, 0.1]
    scores, kept = reduce_dimensions(X, 3)
    variances = np.linalg.eigvalsh(np.cov(X.T))[::-1]
    assert kept == pytest.approx(variances[:3].sum() / variances.sum(), rel=1e-10)
    assert scores.var(axis=0, ddof=1) == pytest.approx(variances[:3], rel=1e-10)
    constant, nothing = reduce_dimensions(np.full((50, 6), 0.1), 3)
    assert constant.shape == (50, 3) and nothing is None


def test_undefined_numbers_are_none_with_a_reason() -> None:
    few = convert_to_json(estimate_mutual_information(np.zeros((3, 20)), np.arange(3.0)))
    assert [few[name] for name in ("value", "low", "high", "variance_kept_x")] == [None] * 4
    assert {"value", "low", "high", "variance_kept_x"} <= few["notes"].keys()  # type: ignore[attr-defined]
    small = estimate_mutual_information(*draw_gaussians(0.5, 1, 50))
    assert small.value is not None and small.low is None and "200 samples" in small.notes["low"]


def test_label_information_counts_the_samples_used() -> None:
    X, _ = draw_gaussians(0, 3, 600)
    labels = (X[:, 0] > 0).astype(int)
    result = estimate_label_information(X, labels)
    assert result.value == estimate_ross(X, labels)
    assert result.low < result.value < result.high and "variant" in result.notes
    labels[:4] = [7, 8, 9, 9]
    partial = estimate_label_information(X, labels)
    assert partial.n == 598 and partial.notes["n"].startswith("2 samples") and "1 class(es)" in partial.notes["k"]
    nothing = convert_to_json(estimate_label_information(X[:4], np.arange(4)))
    assert nothing["value"] is None and "2 samples" in nothing["notes"]["value"]


def test_interval_of_a_mean_is_the_textbook_one() -> None:
    # The weighted variance estimates var / n of a mean, whose normal interval is known.
    data = np.random.default_rng(0).standard_normal(20_000)
    half = [
        np.diff(compute_subsample_interval(lambda rows: data[rows].mean(), 20_000, value=0.0, seed=seed))[0] / 2
        for seed in range(20)
    ]
    assert np.mean(half) == pytest.approx(1.96 * data.std() / math.sqrt(20_000), rel=0.1)


def test_interval_widens_with_level_and_splits_without_overlap() -> None:
    seen: list[np.ndarray] = []

    def estimate(rows: np.ndarray) -> float:
        seen.append(rows)
        return float(rows.mean())

    low, high = compute_subsample_interval(estimate, 40, value=5.0, max_parts=3, level=0.95)
    assert [len(rows) for rows in seen] == [20, 20, 14, 13, 13]
    assert sorted(np.concatenate(seen[2:])) == list(range(40))
    narrow = compute_subsample_interval(estimate, 40, value=5.0, max_parts=3, level=0.5)
    assert low < narrow[0] < 5 < narrow[1] < high and low + high == pytest.approx(10)


def test_interval_covers_the_estimators_own_expectation() -> None:
    results = [estimate_mutual_information(*draw_gaussians(0.5, 1, 300, seed=seed)) for seed in range(40)]
    centre = np.mean([result.value for result in results])
    covered = sum(result.low <= centre <= result.high for result in results)
    assert covered >= 33  # 38 expected at 0.95


def test_contrastive_bound_lies_below_the_information_of_gaussians() -> None:
    # InfoNCE with the true density ratio as its critic, rho = 0.9: I = 0.830 nats.
    assert compute_nce_bound(2.0, 16_384) == pytest.approx(7.704060527839234, rel=1e-14)
    X, Y = draw_gaussians(0.9, 1, 1000)
    rho = 0.9
    ratio = -(((Y.T - rho * X) ** 2) / (1 - rho**2)) / 2 + Y.T**2 / 2  # (N, N), log p(y|x) / p(y) + constant
    loss = float(np.mean(np.log(np.exp(ratio).sum(axis=1)) - np.diag(ratio)))
    bound = compute_nce_bound(loss, 999)
    assert 0.7 < bound < -math.log(1 - rho**2) / 2 + 0.05


@pytest.mark.parametrize(("copied", "copies"), [(500, 3), (25, 4)])
def test_repeated_samples_count_once(copied: int, copies: int) -> None:
    # Independent data: before, every sample four times gave 6.1 nats and 5 % of samples five times 1.2.
    X, Y = draw_gaussians(0.0, 2, 500)
    again = np.concatenate([np.arange(500), np.repeat(np.arange(copied), copies)])
    plain, repeated = estimate_mutual_information(X, Y), estimate_mutual_information(X[again], Y[again])
    assert repeated.value == plain.value and abs(repeated.value) < 0.1
    assert (repeated.n, repeated.low) == (500, plain.low)
    assert repeated.notes["n"].startswith(f"{copied * copies} of {500 + copied * copies} samples repeat")
    labels = np.arange(500) % 3
    plain, repeated = estimate_label_information(X, labels), estimate_label_information(X[again], labels[again])
    assert repeated.value == plain.value and abs(repeated.value) < 0.1
    assert f"{copied * copies} of" in repeated.notes["n"]


def test_too_few_distinct_samples_give_no_number() -> None:
    X, Y = draw_gaussians(0.9, 2, 15)
    again = np.arange(300) % 15
    result = estimate_mutual_information(X[again], Y[again])
    assert result.value is None and "20 distinct samples or more, not 15" in result.notes["value"]
    result = estimate_label_information(X[again], again % 2)
    assert result.value is None and "15 distinct samples" in result.notes["value"]


def test_equal_features_of_other_labels_are_no_repeats() -> None:
    X = np.repeat(np.arange(50.0), 2)
    labels = np.arange(100) % 2
    assert "n" not in estimate_label_information(X, labels).notes
    assert "n" not in estimate_mutual_information(X, labels + X / 100).notes


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: estimate_mutual_information(np.zeros((9, 2)), np.zeros((8, 2))), "same samples"),
        (lambda: estimate_label_information(np.zeros((9, 2)), np.zeros(8)), "labels must be"),
        (lambda: reduce_dimensions(np.zeros((9, 2)), 0), "max_dims"),
        (lambda: compute_subsample_interval(np.mean, 40, value=5.0, level=1), "level"),
        (lambda: compute_subsample_interval(np.mean, 10, value=5.0), "parts"),
        (lambda: compute_nce_bound(math.nan, 5), "finite loss"),
        (lambda: compute_nce_bound(1.0, 0), "finite loss"),
    ],
)
def test_wrong_input_is_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
