from __future__ import annotations

import dataclasses
import json
import math

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import cohen_kappa_score, matthews_corrcoef
from statsmodels.stats import contingency_tables as sm

from diagnostics import statistics
from diagnostics.plain import to_plain
from diagnostics.statistics import NOT_FINITE, Counts, Noted, compute_paired_statistics, count_pairs

cell = st.integers(0, 300)
tables = st.tuples(cell, cell, cell, cell).filter(any).map(lambda cells: Counts(*cells))
random_tables = settings(deadline=None, max_examples=50, derandomize=True)


@pytest.mark.parametrize(
    ("cells", "mcnemar", "chi_square", "phi", "dissimilarity", "separation"),
    [
        ((4869, 1884, 694, 2553), "548.38", "2283.92", "0.478", "0.336", "0.462"),
        ((5186, 1879, 512, 2423), "780.41", "2646.67", "0.515", "0.330", "0.572"),
        ((2919, 3430, 445, 3206), "2297.87", "1183.88", "0.344", "0.377", "0.770"),
    ],
)
def test_published_table(cells, mcnemar, chi_square, phi, dissimilarity, separation) -> None:
    result = compute_paired_statistics(Counts(*cells))
    assert f"{result.mcnemar_corrected.statistic:.2f}" == mcnemar
    assert f"{result.chi_square_yates.statistic:.2f}" == chi_square
    assert f"{result.phi:.3f}" == phi
    assert f"{result.error_dissimilarity:.3f}" == dissimilarity
    assert f"{result.error_separation_index:.3f}" == separation
    assert result.quoted_test == result.mcnemar_corrected
    assert result.notes == {}


def test_counts_and_statistics_by_hand() -> None:
    correct_a = np.array([True, True, True, True, True, True, False, False, False, False])
    correct_b = np.array([True, True, True, True, False, False, True, False, False, False])
    counts = count_pairs(correct_a, correct_b)
    assert counts == Counts(a=4, b=2, c=1, d=3)
    result = compute_paired_statistics(counts)
    assert (result.n, result.accuracy_a, result.accuracy_b) == (10, 0.6, 0.5)
    assert result.difference == pytest.approx(-0.1)
    assert result.mcnemar.statistic == pytest.approx(1 / 3)
    assert result.mcnemar_corrected.statistic == 0
    assert result.mcnemar_exact == statistics.TestResult(1.0, pytest.approx(1.0), pytest.approx(0.0, abs=1e-12))
    assert result.chi_square.statistic == pytest.approx(10 * 10**2 / (6 * 4 * 5 * 5))
    assert result.chi_square_yates.statistic == pytest.approx(10 * (10 - 5) ** 2 / (6 * 4 * 5 * 5))
    assert result.phi == pytest.approx(10 / math.sqrt(600))
    assert result.error_separation_index == pytest.approx(1 / 3)
    assert result.error_dissimilarity == pytest.approx(3 / 9)
    assert result.kappa == pytest.approx(0.4)  # agreement 0.7, by chance 0.5
    assert result.yules_q == pytest.approx(10 / 14)
    assert (result.disagreement, result.double_fault) == (0.3, 0.3)
    assert result.odds_ratio.value == pytest.approx(6)


@random_tables
@given(tables)
def test_agrees_with_statsmodels_scipy_and_scikit_learn(counts) -> None:
    result = compute_paired_statistics(counts)
    cells = [counts.a, counts.b, counts.c, counts.d]
    correct_a = np.repeat([True, True, False, False], cells)
    correct_b = np.repeat([True, False, True, False], cells)
    assert count_pairs(correct_a, correct_b) == counts

    square = np.array([cells[:2], cells[2:]])
    assert result.mcnemar_exact.p == pytest.approx(sm.mcnemar(square, exact=True).pvalue)
    fewer, more = sorted((counts.b, counts.c))
    own = stats.binom.pmf(fewer, fewer + more, 0.5)
    mid_p = 1 - own / 2 if fewer == more > 0 else stats.binomtest(fewer, fewer + more).pvalue - own if more else 1
    assert result.mcnemar_mid_p.p == pytest.approx(mid_p, abs=1e-12)
    if counts.b + counts.c:
        plain = sm.mcnemar(square, exact=False, correction=False)
        assert (result.mcnemar.statistic, result.mcnemar.p) == pytest.approx((plain.statistic, plain.pvalue))
    if counts.b != counts.c:  # at b = c statsmodels lets its correction pass 0
        plain = sm.mcnemar(square, exact=False, correction=True)
        ours = result.mcnemar_corrected
        assert (ours.statistic, ours.p) == pytest.approx((plain.statistic, plain.pvalue))

    table = sm.Table2x2(square if square.all() else square + 0.5)  # it would add 0.5 to the empty cells alone
    ours = dataclasses.astuple(result.odds_ratio)
    assert ours == pytest.approx((table.oddsratio, *table.oddsratio_confint()))
    if counts.margins:
        assert result.phi == pytest.approx(matthews_corrcoef(correct_a, correct_b))
        assert result.kappa == pytest.approx(cohen_kappa_score(correct_a, correct_b))
        for yates, ours in ((True, result.chi_square_yates), (False, result.chi_square)):
            statistic, p, _, _ = stats.chi2_contingency(square, correction=yates)
            assert (ours.statistic, ours.log10_p) == pytest.approx((statistic, math.log10(p)), abs=1e-12)
            assert ours.p == pytest.approx(p)


@random_tables
@given(tables)
def test_swapping_the_models_changes_signs_alone(counts) -> None:
    swapped = compute_paired_statistics(Counts(counts.a, counts.c, counts.b, counts.d))
    result = compute_paired_statistics(counts)
    assert swapped.difference == -result.difference
    for name in ("mcnemar_corrected", "mcnemar_exact", "chi_square_yates", "phi", "kappa", "yules_q"):
        assert getattr(swapped, name) == getattr(result, name)
    for value in (result.phi, result.kappa, result.yules_q):
        assert value is None or -1 - 1e-12 <= value <= 1 + 1e-12


@pytest.mark.parametrize("counts", [Counts(0, 9, 1, 0), Counts(0, 3430, 445, 0), Counts(0, 0, 100_000, 0)])
def test_log10_p_of_chi_square_does_not_underflow(counts) -> None:
    ours = statistics.compute_mcnemar(counts)
    with mpmath.workdps(50):
        reference = mpmath.log10(mpmath.erfc(mpmath.sqrt(mpmath.mpf(ours.statistic) / 2)))
    assert ours.log10_p == pytest.approx(float(reference), rel=1e-12)


@pytest.mark.parametrize(("b", "c"), [(3, 9), (445, 3430), (49_000, 51_000), (10, 99_990), (100_000, 0)])
def test_log10_p_of_exact_test_does_not_underflow(b, c) -> None:
    ours = statistics.compute_exact_mcnemar(Counts(0, b, c, 0))
    term = tail = 1  # binomial coefficients of 0, 1, ..., min(b, c), in whole numbers
    for k in range(1, min(b, c) + 1):
        term = term * (b + c - k + 1) // k
        tail += term
    with mpmath.workdps(30):
        reference = mpmath.log10(2 * mpmath.mpf(tail)) - (b + c) * mpmath.log10(2)
    assert ours.log10_p == pytest.approx(float(reference), rel=1e-10)


def test_exact_test_is_quoted_below_25_discordant_images() -> None:
    few, many = compute_paired_statistics(Counts(50, 20, 4, 10)), compute_paired_statistics(Counts(50, 20, 5, 10))
    assert (few.quoted, many.quoted) == ("exact", "corrected")
    assert few.quoted_test == few.mcnemar_exact
    assert few.mcnemar_exact.p == pytest.approx(stats.binomtest(4, 24).pvalue)


def test_mid_p_of_fagerlands_example() -> None:
    result = compute_paired_statistics(Counts(0, 7, 1, 13))  # Fagerland et al. 2013, table 1: 0.070 and 0.039
    assert (result.mcnemar_exact.p, result.mcnemar_mid_p.p) == pytest.approx((18 / 256, 10 / 256))
    assert result.quoted == "exact"


def test_equal_wins_give_p_of_one() -> None:
    result = compute_paired_statistics(Counts(10, 30, 30, 5))
    assert dataclasses.astuple(result.mcnemar_corrected) == pytest.approx((0.0, 1.0, 0.0), abs=1e-12)
    assert result.mcnemar_exact.p == 1.0 and result.error_separation_index == 0


def test_identical_models_have_no_discordant_images() -> None:
    result = compute_paired_statistics(Counts(80, 0, 0, 20))
    undefined = {"mcnemar_corrected", "mcnemar", "error_separation_index"}
    assert set(result.notes) == undefined | {"mcnemar_exact", "mcnemar_mid_p", "odds_ratio"}
    assert result.mcnemar_corrected == statistics.TestResult(None, None, None)
    assert (result.quoted, result.quoted_test.p) == ("exact", 1.0)
    assert (result.phi, result.kappa, result.yules_q, result.error_dissimilarity) == (1, 1, 1, 0)
    assert result.odds_ratio.value == pytest.approx(80.5 * 20.5 / 0.25)


def test_model_that_is_always_right_has_no_phi() -> None:
    result = compute_paired_statistics(Counts(90, 0, 10, 0))
    assert set(result.notes) == {"chi_square", "chi_square_yates", "phi", "yules_q", "odds_ratio"}
    assert result.phi is None and result.yules_q is None and result.chi_square.p is None
    assert (result.kappa, result.error_separation_index, result.error_dissimilarity) == (0, 1, 1)
    assert result.quoted_test.p == pytest.approx(2 * 0.5**10)


@random_tables
@given(st.tuples(*[st.integers(0, 2)] * 4).filter(any))
def test_every_undefined_number_has_a_note(cells) -> None:
    result = compute_paired_statistics(Counts(*cells))
    json.dumps(dataclasses.asdict(result), allow_nan=False)
    for name, value in dataclasses.asdict(result).items():
        missing = value is None or (isinstance(value, dict) and value.get("p", 0) is None)
        assert not missing or result.notes[name].endswith(".")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: count_pairs(np.ones(3, bool), np.ones(3)), "predictions == labels"),
        (lambda: count_pairs(np.ones(3, bool), np.ones(2, bool)), "shape"),
        (lambda: count_pairs(np.ones(0, bool), np.ones(0, bool)), "at least one image"),
        (lambda: Counts(1, 1, -1, 1), "Counts.c"),
    ],
)
def test_wrong_input_is_refused(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_numbers_that_are_not_finite_are_none_with_a_note() -> None:
    @dataclasses.dataclass(frozen=True)
    class Result(Noted):
        statistic: float | None
        p: float | None
        share: float
        notes: dict[str, str]

    found = Result(math.inf, 0.0, 0.5, {"share": "kept"})
    assert (found.statistic, found.p, found.share) == (None, None, 0.5)
    assert found.notes == {"statistic": NOT_FINITE, "p": NOT_FINITE, "share": "kept"}
    assert to_plain([math.nan, {"a": -math.inf}, 1.0]) == [None, {"a": None}, 1.0]
