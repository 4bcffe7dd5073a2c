"""Whether the student in question is ahead of the other models or behind them, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from diagnostics.aligned import judge_stage1
from diagnostics.comparison import DifferenceInterval
from diagnostics.evaluation.results import Report
from diagnostics.names import is_first, listed
from diagnostics.seeds import SeedComparison
from diagnostics.statistics import SIGNIFICANCE

ONE_MODEL = "There is one model: nothing to compare."
NO_STUDENT = "No student is among these models."
Side = Literal["behind", "ahead", "even"]


@dataclass(frozen=True)
class Verdict:
    """The answer as sentences: what stands first, and the words of caution that belong to it."""

    answer: list[str]
    caution: list[str]


def verdict(report: Report) -> Verdict:
    """Return how the student in question did against every other model, over seeds where there are several.

    A model is ahead or behind where the 95 % interval of the difference leaves out 0 and, on images, the
    McNemar test to quote has p < 0.05 as well; all else is "no difference shown".
    """
    main = report.main
    if main is None or len(report.models) == 1:
        return Verdict([ONE_MODEL if len(report.models) == 1 else NO_STUDENT], [])
    sides: dict[Side, list[str]] = {"behind": [], "ahead": [], "even": []}
    doubtful = []
    over_seeds = {row.a: row.result for row in report.seeds.comparisons}
    for row in report.pairs:
        if main not in (row.a, row.b) or not (is_first(row.a) and is_first(row.b)):
            continue
        other = row.a if row.b == main else row.b
        if other in over_seeds:
            side = _side(over_seeds[other], 1)
        else:
            side = _side(row.interval, 1 if row.b == main else -1)
            if side != "even" and row.quoted_p is not None and row.quoted_p >= SIGNIFICANCE:
                doubtful.append(f"{other} (p = {row.quoted_p:.2f})")
                side = "even"
        sides[side].append(other)
    return Verdict(_answer(main, sides), [*_alignment(report, main), *_caution(over_seeds, sides, doubtful)])


def _side(interval: DifferenceInterval | SeedComparison, sign: int) -> Side:
    if interval.low is None or interval.high is None:
        return "even"
    low, high = sorted((sign * interval.low, sign * interval.high))
    return "ahead" if low > 0 else "behind" if high < 0 else "even"


def _answer(main: str, sides: Mapping[Side, Sequence[str]]) -> list[str]:
    answer = []
    if sides["behind"]:
        answer.append(f"{main} is behind {listed(sides['behind'])}.")
    if sides["ahead"]:
        answer.append(f"{main} is ahead of {listed(sides['ahead'])}.")
    else:
        answer.append(f"{main} is ahead of no other model.")
    if sides["even"]:
        answer.append(f"No difference is shown between {main} and {listed(sides['even'])}.")
    return answer


def _alignment(report: Report, main: str) -> list[str]:
    aligned = judge_stage1(report.curves, report.context.config, main)
    if aligned is None:
        return []
    unfit = "" if aligned.word == "aligned" else f"; {main} is no example of its method before it is"
    return [f"Stage 1: {aligned.sentence}{unfit}."]


def _caution(
    over_seeds: Mapping[str, SeedComparison], sides: Mapping[Side, Sequence[str]], doubtful: Sequence[str]
) -> list[str]:
    caution = []
    if doubtful:
        caution.append(
            f"For {listed(doubtful)} the bootstrap interval leaves out 0 but McNemar's test does not confirm it; "
            "few images decide there, and the test is the one to trust."
        )
    on_images = [name for side in sides.values() for name in side if name not in over_seeds]
    if on_images:
        caution.append(
            f"Against {listed(on_images)} the basis is one training of each on these test images: "
            "the interval says what other images would change, not what training again would."
        )
    return caution
