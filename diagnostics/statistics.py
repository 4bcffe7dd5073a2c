"""Paired statistics of two models on the same images.

All follow from four counts over the n images that both models have seen:
    a both right, b only A right, c only B right, d both wrong; n = a + b + c + d.

A number that is not defined is None, and `PairedStatistics.notes` says why under the field's name.
Intervals, corrections for many tests and power are in comparison.py; repeated seeds in seeds.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

CONFIDENCE = 0.95  # of every interval
SIGNIFICANCE = 0.05  # a smaller p is significant
EXACT_BELOW = 25  # with fewer discordant images than this, the exact McNemar test is the one to quote

NOT_FINITE = "Not a finite number for these values."
NO_DISCORDANT = "b + c is 0: no image is right for one model and wrong for the other."
EMPTY_MARGIN = "One of the models is right on every image or on none."
UNDEFINED = {
    "mcnemar_corrected": NO_DISCORDANT,
    "mcnemar": NO_DISCORDANT,
    "chi_square_yates": EMPTY_MARGIN,
    "chi_square": EMPTY_MARGIN,
    "phi": EMPTY_MARGIN,
    "error_separation_index": NO_DISCORDANT,
    "error_dissimilarity": "Neither model makes an error.",
    "kappa": "Both models are right on every image, or both wrong on every image.",
    "yules_q": "The products ad and bc are both 0.",
}


class Noted:
    """Base of results that have `notes`: a number that is not finite becomes None, with a note.

    A test whose statistic is not finite has no p either.
    """

    def __post_init__(self) -> None:
        lost = {
            name for name, value in vars(self).items() if isinstance(value, float) and not math.isfinite(value)
        }
        if lost & {"t", "statistic"}:
            lost |= vars(self).keys() & {"p"}
        for name in sorted(lost):
            object.__setattr__(self, name, None)
            vars(self)["notes"] = {name: NOT_FINITE, **vars(self)["notes"]}


@dataclass(frozen=True)
class Counts:
    """Images by who is right: a both, b only A, c only B, d neither.

    Raises ValueError unless all four are ints of 0 or more, with n >= 1.
    """

    a: int
    b: int
    c: int
    d: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if type(value) is not int or value < 0:
                raise ValueError(f"Counts.{name} must be an int of 0 or more, got {value!r}")
        if self.n == 0:
            raise ValueError("Counts needs at least one image: a, b, c and d are all 0")

    @property
    def n(self) -> int:
        return self.a + self.b + self.c + self.d

    @property
    def accuracy_a(self) -> float:
        return (self.a + self.b) / self.n

    @property
    def accuracy_b(self) -> float:
        return (self.a + self.c) / self.n

    @property
    def margins(self) -> int:
        """Product of the four row and column sums; 0 when a model is right on every image or on none."""
        return (self.a + self.b) * (self.c + self.d) * (self.a + self.c) * (self.b + self.d)

    @property
    def determinant(self) -> int:
        return self.a * self.d - self.b * self.c


@dataclass(frozen=True)
class TestResult:
    """A statistic, its two-sided p in [0, 1], and log10 p, which stays finite where p underflows to 0."""

    statistic: float | None
    p: float | None
    log10_p: float | None


@dataclass(frozen=True)
class OddsRatio:
    """An odds ratio, above 0, with the bounds of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedStatistics(Noted):
    """All statistics of one pair of models; `quoted`, "exact" or "corrected", is the McNemar to report."""

    counts: Counts
    n: int
    accuracy_a: float
    accuracy_b: float
    difference: float  # accuracy of B minus that of A, in [-1, 1]
    quoted: str
    mcnemar_corrected: TestResult
    mcnemar: TestResult
    mcnemar_exact: TestResult
    mcnemar_mid_p: TestResult
    chi_square_yates: TestResult
    chi_square: TestResult
    phi: float | None  # (ad - bc) / sqrt((a+b)(c+d)(a+c)(b+d)): correlation of the two models' correctness
    error_separation_index: float | None  # |b - c| / (b + c), in [0, 1]
    error_dissimilarity: float | None  # (b + c) / (b + c + 2d): Dice distance of the two sets of errors
    odds_ratio: OddsRatio
    kappa: float | None  # Cohen's (1960), of right/wrong: 2(ad - bc) / ((a+b)(b+d) + (a+c)(c+d))
    yules_q: float | None  # (ad - bc) / (ad + bc), 0 for independent errors (Kuncheva & Whitaker 2003)
    disagreement: float  # (b + c) / n (Kuncheva & Whitaker 2003)
    double_fault: float  # d / n (Kuncheva & Whitaker 2003)
    notes: dict[str, str]

    @property
    def quoted_test(self) -> TestResult:
        return self.mcnemar_exact if self.quoted == "exact" else self.mcnemar_corrected


def count_pairs(correct_a: ArrayLike, correct_b: ArrayLike) -> Counts:
    """Count two bool arrays (n,), each True where that model is right on that image.

    Raises ValueError when they are not bool, not of one dimension, not of one length, or empty.
    """
    first, second = np.asarray(correct_a), np.asarray(correct_b)
    if first.dtype != bool or second.dtype != bool:
        raise ValueError("correct_a and correct_b must be bool arrays: pass predictions == labels")
    if first.ndim != 1 or first.shape != second.shape:
        shapes = f"{first.shape} and {second.shape}"
        raise ValueError(f"correct_a and correct_b must both be of shape (n,), one image each: got {shapes}")
    a, b, c = (int(cell.sum()) for cell in (first & second, first & ~second, ~first & second))
    return Counts(a, b, c, first.size - a - b - c)


def compute_mcnemar(counts: Counts, corrected: bool = True) -> TestResult:
    """Compute McNemar's test of equal accuracy, chi-square with 1 d.o.f.

    (|b - c| - 1)^2 / (b + c), the 1 left out when not `corrected` (McNemar 1947; Edwards 1948). The
    correction never passes 0: with b = c the statistic is 0 and p is 1, as in R's mcnemar.test.
    """
    discordant = counts.b + counts.c
    if discordant == 0:
        return TestResult(None, None, None)
    distance = abs(counts.b - counts.c)
    return _make_chi_square_test(max(0, distance - corrected) ** 2 / discordant)


def compute_exact_mcnemar(counts: Counts) -> TestResult:
    """Compute the exact test of min(b, c) against Binomial(b + c, 1/2)."""
    fewer, discordant = min(counts.b, counts.c), counts.b + counts.c
    if 2 * fewer + 1 >= discordant:  # the tails meet or overlap
        return TestResult(float(fewer), 1.0, 0.0)
    from scipy import stats  # takes most of a second to import, which not every report needs

    tail = special.logsumexp(stats.binom.logpmf(np.arange(fewer + 1), discordant, 0.5))
    return _make_test(fewer, math.log(2) + tail)


def compute_mid_p_mcnemar(counts: Counts) -> TestResult:
    """Compute the mid-p test: the exact one with half of the observed count's probability.

    It comes closer to its level than the exact test and seldom exceeds it (Fagerland, Lydersen & Laake 2013).
    """
    fewer, discordant = min(counts.b, counts.c), counts.b + counts.c
    log_own = math.lgamma(discordant + 1) - math.lgamma(fewer + 1) - math.lgamma(discordant - fewer + 1)
    log_own -= discordant * math.log(2)  # of the observed count
    if 2 * fewer == discordant:  # both tails hold the observed count
        return _make_test(fewer, math.log1p(-math.exp(log_own) / 2) if discordant else 0.0)
    from scipy import stats  # takes most of a second to import, which not every report needs

    below = stats.binom.logpmf(np.arange(fewer), discordant, 0.5)
    return _make_test(fewer, special.logsumexp([*(math.log(2) + below), log_own]))


def compute_chi_square(counts: Counts, yates: bool = True) -> TestResult:
    """Compute Pearson's test of independent errors, chi-square with 1 d.o.f.

    n (|ad - bc| - n/2)^2 / ((a+b)(c+d)(a+c)(b+d)); n/2 is Yates' (1934) correction, which never passes 0
    and is left out when not `yates`. Not defined when a model is right on every image or on none.
    """
    if counts.margins == 0:
        return TestResult(None, None, None)
    # Whole numbers up to the one division, doubled so that n/2 is whole too.
    distance = max(0, 2 * abs(counts.determinant) - yates * counts.n)
    return _make_chi_square_test(counts.n * distance**2 / (4 * counts.margins))


def compute_odds_ratio(counts: Counts) -> OddsRatio:
    """Return ad / (bc) with Woolf's (1955) 95 % interval.

    Its log is within 1.96 sqrt(1/a + 1/b + 1/c + 1/d). When a cell is empty, 0.5 is added to all four (Haldane
    1955; Anscombe 1956).
    """
    cells = (counts.a, counts.b, counts.c, counts.d)
    shift = 0.5 if min(cells) == 0 else 0.0
    a, b, c, d = (cell + shift for cell in cells)
    log_ratio = math.log(a * d / (b * c))
    margin = float(special.ndtri(0.975)) * math.sqrt(1 / a + 1 / b + 1 / c + 1 / d)
    return OddsRatio(math.exp(log_ratio), math.exp(log_ratio - margin), math.exp(log_ratio + margin))


def compute_paired_statistics(counts: Counts) -> PairedStatistics:
    """Compute every statistic; notes explain those that are not defined."""
    a, b, c, d = counts.a, counts.b, counts.c, counts.d
    statistics = PairedStatistics(
        counts=counts,
        n=counts.n,
        accuracy_a=counts.accuracy_a,
        accuracy_b=counts.accuracy_b,
        difference=(c - b) / counts.n,
        quoted="exact" if b + c < EXACT_BELOW else "corrected",
        mcnemar_corrected=compute_mcnemar(counts),
        mcnemar=compute_mcnemar(counts, corrected=False),
        mcnemar_exact=compute_exact_mcnemar(counts),
        mcnemar_mid_p=compute_mid_p_mcnemar(counts),
        chi_square_yates=compute_chi_square(counts),
        chi_square=compute_chi_square(counts, yates=False),
        phi=_compute_ratio(counts.determinant, math.sqrt(counts.margins)),
        error_separation_index=_compute_ratio(abs(b - c), b + c),
        error_dissimilarity=_compute_ratio(b + c, b + c + 2 * d),
        odds_ratio=compute_odds_ratio(counts),
        kappa=_compute_ratio(2 * counts.determinant, (a + b) * (b + d) + (a + c) * (c + d)),
        yules_q=_compute_ratio(counts.determinant, a * d + b * c),
        disagreement=(b + c) / counts.n,
        double_fault=d / counts.n,
        notes={},
    )
    values = {name: getattr(statistics, name) for name in UNDEFINED}
    missing = [name for name, value in values.items() if value is None or value == TestResult(None, None, None)]
    return replace(statistics, notes={name: UNDEFINED[name] for name in missing} | _explain_defined(counts))


def _explain_defined(counts: Counts) -> dict[str, str]:
    """Return notes on numbers that are defined but need an explanation."""
    notes = {}
    if counts.b + counts.c == 0:
        notes["mcnemar_exact"] = notes["mcnemar_mid_p"] = (
            NO_DISCORDANT + " Nothing else could be observed, so p is 1."
        )
    if 0 in (counts.a, counts.b, counts.c, counts.d):
        notes["odds_ratio"] = "A cell is empty: 0.5 is added to all four (Haldane-Anscombe)."
        if counts.margins == 0:
            notes["odds_ratio"] += " " + EMPTY_MARGIN + " The ratio rests on that 0.5 alone."
    return notes


def _compute_ratio(numerator: float, denominator: float) -> float | None:
    return numerator / denominator if denominator else None


def _make_chi_square_test(statistic: float) -> TestResult:
    # A chi-square with 1 degree of freedom is a squared normal; log_ndtr does not underflow.
    return _make_test(statistic, math.log(2) + special.log_ndtr(-math.sqrt(statistic)))


def _make_test(statistic: float, log_p: float) -> TestResult:
    log_p = min(0.0, float(log_p))  # two tails that meet, or rounding, may pass 1
    return TestResult(float(statistic), math.exp(log_p), log_p / math.log(10))
