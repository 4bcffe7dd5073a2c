"""The verdict on all students: who is ahead, who is behind, and where nothing is shown, in sentences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Protocol

from diagnostics.aligned import judge_stage1
from diagnostics.comparison import holm
from diagnostics.evaluation.results import ModelAccuracy, OverSeeds, Pair, Report
from diagnostics.names import is_first, listed
from diagnostics.seeds import compare_over_seeds
from diagnostics.statistics import SIGNIFICANCE

ONE_MODEL = "There is one model: nothing to compare."
NO_STUDENT = "No student is among these models."
TEACHER, SCRATCH = "teacher", "scratch"
ONE_SEED = "One seed was trained: set seeds: [0, 1, 2] to see how much training again changes the result."
OF_SEEDS = "Several give each method a mean with its interval, and compare methods by paired tests over seeds."


class Scores(Protocol):
    """Accuracies and their comparisons: of a whole report, or of a quick one."""

    @property
    def main(self) -> str | None: ...
    @property
    def models(self) -> list[ModelAccuracy]: ...
    @property
    def pairs(self) -> list[Pair]: ...
    @property
    def seeds(self) -> OverSeeds: ...


@dataclass(frozen=True)
class Contest:
    """A model against another one; low and high bound its lead in accuracy, p tests it."""

    other: str
    low: float | None
    high: float | None
    p: float | None
    is_over_seeds: bool

    @property
    def lead(self) -> int:
        """1 where the interval says ahead, -1 where it says behind, else 0."""
        if self.low is None or self.high is None:
            return 0
        return (self.low > 0) - (self.high < 0)


@dataclass(frozen=True)
class Standing:
    """The models that one is behind, ahead of, or not shown to differ from."""

    behind: list[str] = field(default_factory=list)
    ahead: list[str] = field(default_factory=list)
    even: list[str] = field(default_factory=list)
    doubtful: list[str] = field(default_factory=list)  # of the even ones, those that the interval alone would part


def write_verdict(scores: Scores) -> list[str]:
    """Return the verdict on all students, a teacher that cannot help first.

    A model is ahead or behind where the 95 % interval of the difference leaves out 0 and, on images, the McNemar
    test to quote has p < 0.05 as well. The best student is chosen here, so its p-values are Holm's.
    """
    main = scores.main
    if main is None or len(scores.models) == 1:
        return [ONE_MODEL if len(scores.models) == 1 else NO_STUDENT]
    lines = [*_warn_of_teacher(scores), *_name_best(scores, main)]
    found = sort_contests(list_contests(scores, main))
    if found.behind:
        lines.append(f"{main} is behind {listed(found.behind)}.")
    lines.append(f"{main} is ahead of {listed(found.ahead) if found.ahead else 'no other model'}.")
    if found.even:
        lines.append(f"No difference is shown between {main} and {listed(found.even)}.")
    return lines


def write_cautions(report: Report) -> list[str]:
    """Return what to keep in mind with the answer: stage 1, tests beside intervals, a single training."""
    main, lines = report.main, []
    if main is None or len(report.models) == 1:
        return []
    aligned = judge_stage1(report.curves, report.context.config, main)
    if aligned is not None:
        unfit = "" if aligned.word == "aligned" else f"; {main} is no example of its method before it is"
        lines.append(f"Stage 1: {aligned.sentence}{unfit}.")
    contests = list_contests(report, main)
    doubtful = sort_contests(contests).doubtful
    if doubtful:
        lines.append(
            f"For {listed(doubtful)} the bootstrap interval leaves out 0, but McNemar's test does not confirm it. "
            "The interval is too narrow where few images decide, so the test counts."
        )
    on_images = [contest.other for contest in contests if not contest.is_over_seeds]
    if on_images:
        lines.append(
            f"Against {listed(on_images)} the basis is one training of each on these test images: the interval "
            "shows what other images would change, not what training again would."
        )
    return lines


def compute_means(models: Iterable[ModelAccuracy]) -> dict[str, float]:
    """Return the top-1 of each method, the mean over its seeds."""
    found: dict[str, list[float]] = {}
    for model in models:
        found.setdefault(model.method, []).append(model.top1)
    return {method: fmean(values) for method, values in found.items()}


def list_contests(scores: Scores, name: str) -> list[Contest]:
    """Return a model of the first seed against each other one: over shared seeds, else on the test images."""
    top1: dict[str, dict[int, float]] = {}
    for model in scores.models:
        if model.seed is not None:
            top1.setdefault(model.method, {})[model.seed] = model.top1
    contests = []
    for row in scores.pairs:
        if name not in (row.a, row.b) or not (is_first(row.a) and is_first(row.b)):
            continue
        other = row.a if row.b == name else row.b
        own, others = top1.get(name, {}), top1.get(other, {})
        shared = sorted(own.keys() & others.keys())
        if len(shared) > 1:
            over = compare_over_seeds([others[seed] for seed in shared], [own[seed] for seed in shared])
            contests.append(Contest(other, over.low, over.high, over.p, True))
            continue
        bounds = (row.interval.low, row.interval.high)
        if row.a == name and None not in bounds:
            bounds = (-(row.interval.high or 0), -(row.interval.low or 0))
        contests.append(Contest(other, *bounds, row.quoted_p, False))
    return contests


def sort_contests(contests: Sequence[Contest]) -> Standing:
    """Return which models one is behind and ahead of: by the interval over seeds, by it and the test on images."""
    standing = Standing()
    for contest in contests:
        is_refuted = not contest.is_over_seeds and contest.p is not None and contest.p >= SIGNIFICANCE
        if contest.lead and is_refuted:
            standing.doubtful.append(f"{contest.other} (p = {contest.p:.2f})")
        side = 0 if is_refuted else contest.lead
        (standing.even, standing.ahead, standing.behind)[side].append(contest.other)
    return standing


def _warn_of_teacher(scores: Scores) -> list[str]:
    means = compute_means(scores.models)
    if TEACHER not in means or SCRATCH not in means:
        return []
    points = round(100 * (means[SCRATCH] - means[TEACHER]), 1)
    if points <= 0:
        return []
    return [
        f"teacher is {points:.3g} points below scratch: it cannot raise a student above training on labels alone."
    ]


def _name_best(scores: Scores, main: str) -> list[str]:
    """Return the best student and how it stands to the others but `main`, of which the next lines tell."""
    means = compute_means(model for model in scores.models if model.method not in (TEACHER, "stage1"))
    if len(means) < 2:
        return []
    best = max(means, key=lambda method: means[method])
    parts = [f"Best student: {best}, {100 * means[best]:.1f} %."]
    contests = [one for one in list_contests(scores, best) if one.other != TEACHER]
    adjusted = holm([contest.p for contest in contests])
    others = [(one.other, p) for one, p in zip(contests, adjusted, strict=True) if main not in (best, one.other)]
    ahead = [other for other, p in others if p is not None and p < SIGNIFICANCE]
    even = [other for other, _ in others if other not in ahead]
    parts += [f"It is ahead of {listed(ahead)} (p < 0.05 by Holm)."] if ahead else []
    parts += [f"No difference is shown from {listed(even)}."] if even else []
    return [" ".join(parts)]
