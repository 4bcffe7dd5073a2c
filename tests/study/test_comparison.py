from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from study.comparison import (
    Contrast,
    Difference,
    apply_holm,
    compare_paired,
    compute_above,
    describe_caution,
    describe_difference,
    describe_stated,
    make_decision,
)
from study.units import Unit

SEEDS = "5 student seeds of one teacher"
WIGGLE = np.array([-1, 1, 0, -1, 1]) / 1000  # half-width of the interval: 0.124 points


def make_contrast(result: Difference, measure: str = "following", **changes) -> Contrast:
    return Contrast({}, "", "A", "B", measure, result, {}, None, **changes)


def compare_seeds(first: Mapping[int, float], second: Mapping[int, float]) -> Difference:
    """Compare values by student seed of one teacher."""
    units = [{Unit(seed): value for seed, value in one.items()} for one in (first, second)]
    return compare_paired(*units, dict.fromkeys(units[0], "digest"))  # type: ignore[call-arg]


def compare_with_constant(differences) -> Difference:
    first = dict(enumerate(0.3 + np.asarray(differences)))
    return compare_seeds(first, dict.fromkeys(first, 0.3))


@pytest.mark.parametrize(
    ("differences", "decision", "text"),
    [
        (WIGGLE, "equivalent", f"0.0 points (95 % −0.1 to 0.1 over {SEEDS}, p = 1.000 by Holm)"),
        (
            WIGGLE + 0.01,
            "higher, by less than the margin",
            f"1.0 points (95 % 0.9 to 1.1 over {SEEDS}, p < 0.001 by Holm)",
        ),
        (WIGGLE - 0.05, "lower", f"−5.0 points (95 % −5.1 to −4.9 over {SEEDS}, p < 0.001 by Holm)"),
        (20 * WIGGLE + 0.04, "higher", f"4.0 points (95 % 1.5 to 6.5 over {SEEDS}, p = 0.022 by Holm)"),
        (20 * WIGGLE + 0.03, "undecided", f"3.0 points (95 % 0.5 to 5.5 over {SEEDS}, p = 0.057 by Holm)"),
        (20 * WIGGLE, "undecided", f"0.0 points (95 % −2.5 to 2.5 over {SEEDS}, p = 1.000 by Holm)"),
        ([0.1], "undecided", "10.0 points (1 student seed of one teacher)"),
    ],
)
def test_direction_is_decided_by_holms_p_and_equivalence_by_the_interval(differences, decision, text) -> None:
    """As one of two tests alike."""
    row = apply_holm([make_contrast(compare_with_constant(differences), name="H1", margin=0.02)] * 2)[0]
    row = replace(row, decision=make_decision(row))
    expected = f"cue following of A minus that of B is {text}"
    assert describe_stated(row) == f"H1 (equivalent within ±2 points), {decision}: {expected}"


def test_no_common_seed_is_said() -> None:
    row = make_contrast(compare_seeds({0: 0.5}, {1: 0.5}), "unbiased")
    assert describe_difference(row).endswith("is not known: no seed has a value of both")


def make_claim(differences, exceeds: float, tests: int = 1) -> Contrast:
    """Return a row of a hypothesis that A - B exceeds a threshold, one of so many alike."""
    row = make_contrast(compute_above(compare_with_constant(differences), exceeds), name="H2", exceeds=exceeds)
    row = apply_holm([row] * tests)[0]
    return replace(row, decision=make_decision(row))


DIFFERENCES = [0.10, 0.14, 0.12, 0.08, 0.16]  # mean 0.12, deviation 0.1 ** 1.5


def test_a_threshold_is_tested_one_sided() -> None:
    row = make_claim(DIFFERENCES, 0.05)
    expected = stats.ttest_1samp(DIFFERENCES, 0.05, alternative="greater")
    assert np.isclose(row.result.t, expected.statistic) and np.isclose(row.result.p, expected.pvalue)
    interval = expected.confidence_interval(0.95)
    assert 0.0038 < row.result.p < 0.0039 and np.isclose(row.result.low, interval.low) and row.result.level == 0.9
    assert row.result.low > 0.05 and make_claim(DIFFERENCES, row.result.low).holm_p == pytest.approx(0.05)
    difference = (
        f"cue following of A minus that of B is 12.0 points (90 % 9.0 to 15.0 over {SEEDS}, p = 0.004 by Holm)"
    )
    assert describe_stated(row) == f"H2 (above 5 points), shown: {difference}"


@pytest.mark.parametrize(
    ("differences", "exceeds", "tests", "decision"),
    [
        (DIFFERENCES, 0.05, 12, "shown"),  # 12 * 0.0039 < 0.05
        (DIFFERENCES, 0.05, 13, "not shown"),
        (DIFFERENCES, 0.1, 1, "not shown"),
        (DIFFERENCES, 0.150, 1, "not shown"),
        (DIFFERENCES, 0.151, 1, "contradicted"),  # beyond the one-sided bound
        (DIFFERENCES, 0.16, 2, "contradicted"),
        (DIFFERENCES, 0.16, 3, "not shown"),  # as many tests as would spoil "shown"
        ([-d for d in DIFFERENCES], -0.2, 1, "shown"),
        ([0.1], 0, 1, "not shown"),
        ([], 0, 1, "not shown"),
        ([0.1, 0.1], 0, 1, "not shown"),  # no spread, so no p
    ],
)
def test_a_threshold_is_decided_by_holms_p(differences, exceeds, tests, decision) -> None:
    assert make_claim(differences, exceeds, tests).decision == decision


def test_lower_following_through_lower_accuracy_is_cautioned() -> None:
    seeds = range(5)
    less, more = {s: 0.1 + s / 1000 for s in seeds}, {s: 0.3 - s / 1000 for s in seeds}
    accurate, poor = dict.fromkeys(seeds, 0.9), {s: 0.6 + s / 1000 for s in seeds}
    for first, second, own, other in ((less, more, poor, accurate), (more, less, accurate, poor)):
        row = apply_holm([make_contrast(compare_seeds(first, second))])[0]
        text = describe_caution(row, compare_seeds(own, other))
        lower = "A" if first is less else "B"
        assert text.startswith(f"{lower} follows the cue less, but its unbiased accuracy is lower too, by 29.8")
        assert text.endswith("is not mitigation")
        assert describe_caution(row, compare_seeds(other, own)) is None
        assert describe_caution(replace(row, holm_p=0.06), compare_seeds(own, other)) is None
        assert describe_caution(replace(row, measure="clean"), compare_seeds(own, other)) is None
