"""The verdict on all students: who is ahead, who is behind, and where nothing is shown, in sentences."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Protocol

from diagnostics.aligned import evaluate_stage1
from diagnostics.comparison import DifferenceInterval, apply_holm_correction
from diagnostics.evaluation.results import ModelAccuracy, OverSeeds, Pair, Report
from diagnostics.names import is_first, join_names
from diagnostics.seeds import SeedComparison, compare_over_seeds
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
    """A model against another one."""

    other: str
    lead: int  # by the 95 % interval: 1 ahead, -1 behind, 0 where it holds 0 or there is none
    p: float | None  # Holm's, of the test beside it
    is_over_seeds: bool  # else on the test images of one training

    @property
    def is_doubtful(self) -> bool:
        """Whether Holm's p does not confirm the interval: there are many comparisons, or few images decide."""
        return self.lead != 0 and self.p is not None and self.p >= SIGNIFICANCE

    @property
    def outcome(self) -> int:
        return 0 if self.is_doubtful else self.lead


def write_verdict(scores: Scores) -> list[str]:
    """Return the verdict on all students, a teacher that cannot help first.

    A model is ahead or behind where Holm's p is below 0.05 and the 95 % interval of the difference leaves out 0.
    Holm corrects over all comparisons of `main`. The best student is chosen here by its accuracy, so its p-values
    are corrected over all pairs of students.
    """
    main = scores.main
    if main is None or len(scores.models) == 1:
        return [ONE_MODEL if len(scores.models) == 1 else NO_STUDENT]
    contests = list_contests(scores, main)
    even, ahead, behind = ([one.other for one in contests if one.outcome == outcome] for outcome in (0, 1, -1))
    lines = [*_warn_of_teacher(scores), *_name_best(scores, main)]
    lines += [f"{main} is behind {join_names(behind)}."] if behind else []
    lines += [f"{main} is ahead of {join_names(ahead)}."] if ahead else []
    lines += [f"{main} shows no difference from {join_names(even)}."] if even else []
    return lines


def write_cautions(report: Report) -> list[str]:
    """Return what to keep in mind with the verdict, such as repeated images and a single training."""
    repeated = report.context.repeats.describe()
    main, lines = report.main, [repeated] if repeated else []
    if main is None or len(report.models) == 1:
        return lines
    aligned = evaluate_stage1(report.curves, report.context.config, main)
    if aligned is not None:
        unfit = "" if aligned.word == "aligned" else f"; {main} is no example of its method before it is"
        lines.append(f"Stage 1: {aligned.sentence}{unfit}.")
    contests = list_contests(report, main)
    doubtful = [f"{one.other} (p = {one.p:.2f})" for one in contests if one.is_doubtful]
    if doubtful:
        lines.append(
            f"For {join_names(doubtful)} the 95 % interval leaves out 0, but p by Holm is not below 0.05. The "
            "interval is of one comparison, and too narrow where few images decide, so p counts."
        )
    on_images = [one.other for one in contests if not one.is_over_seeds]
    if on_images:
        lines.append(
            f"Against {join_names(on_images)} the basis is one training of each on these test images: the "
            "interval shows what other images would change, not what training again would."
        )
    return lines


def list_contests(scores: Scores, name: str, family: Collection[str] = ()) -> list[Contest]:
    """Return a model of the first seed against each other one: over shared seeds, else on the test images.

    Holm corrects over all pairs on the images, and over seeds over those of `name`, or over all pairs of `family`.
    """
    top1 = group_top1(scores.models)
    contests: dict[tuple[str, str], Contest] = {}
    for row in scores.pairs:
        is_asked = {row.a, row.b} <= set(family) if family else name in (row.a, row.b)
        if not (is_asked and is_first(row.a) and is_first(row.b)):
            continue
        own, other, sign = (row.a, row.b, -1) if row.a == name else (row.b, row.a, 1)
        shared = sorted(seed for seed in top1[own].keys() & top1[other].keys() if seed is not None)
        if len(shared) > 1:
            over = compare_over_seeds(*([top1[one][seed] for seed in shared] for one in (other, own)))
            contests[own, other] = Contest(other, _find_lead(over), over.p, True)
        else:
            contests[own, other] = Contest(other, sign * _find_lead(row.interval), row.holm_p, False)
    tests = {pair: contest.p for pair, contest in contests.items() if contest.is_over_seeds}
    adjusted = dict(zip(tests, apply_holm_correction(list(tests.values())), strict=True))
    return [replace(one, p=adjusted.get(pair, one.p)) for pair, one in contests.items() if pair[0] == name]


def _find_lead(interval: DifferenceInterval | SeedComparison) -> int:
    if interval.low is None or interval.high is None:
        return 0
    return (interval.low > 0) - (interval.high < 0)


def group_top1(models: Iterable[ModelAccuracy]) -> dict[str, dict[int | None, float]]:
    """Return the top-1 of each method by seed."""
    found: dict[str, dict[int | None, float]] = {}
    for model in models:
        found.setdefault(model.method, {})[model.seed] = model.top1
    return found


def _warn_of_teacher(scores: Scores) -> list[str]:
    means = {method: fmean(values.values()) for method, values in group_top1(scores.models).items()}
    points = round(100 * (means.get(SCRATCH, 0) - means.get(TEACHER, 1)), 1)
    if points <= 0:
        return []
    return [f"teacher is {points:.3g} points below scratch: it cannot lift a student above training on labels."]


def _name_best(scores: Scores, main: str) -> list[str]:
    """Return the best student and how it stands to the others but `main`, of which the next lines tell."""
    means = {method: fmean(values.values()) for method, values in group_top1(scores.models).items()}
    means.pop(TEACHER, None)
    if len(means) < 2:
        return []
    best = max(means, key=lambda method: means[method])
    parts = [f"Best student: {best}, {100 * means[best]:.1f} %."]
    others = [one for one in list_contests(scores, best, means) if main not in (best, one.other)]
    ahead = [one.other for one in others if one.outcome > 0]
    even = [one.other for one in others if one.outcome <= 0]
    parts += [f"It is ahead of {join_names(ahead)} (p < 0.05 by Holm)."] if ahead else []
    parts += [f"No difference is shown from {join_names(even)}."] if even else []
    return [" ".join(parts)]
