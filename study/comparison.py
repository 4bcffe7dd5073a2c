"""Two methods of a study on the same seeds, and the sentences that the comparison allows.

Numbers are shares in [0, 1]; differences are first - second; sentences speak of percent points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from diagnostics.comparison import holm
from diagnostics.seeds import compare_over_seeds

Section = dict[str, Any]
BySeed = Mapping[int, float]
LEVEL = 0.05
UNBIASED = "unbiased"
WORDS = {"following": "cue following", "worst_group": "worst-group accuracy", "test_top1": "test accuracy"}
WORDS |= {name: f"{name} accuracy" for name in (UNBIASED, "clean", "aligned", "conflicting")}
NUMBERS = ("difference", "sd", "low", "high", "t", "p", "wilcoxon_p")


def compare(first: BySeed, second: BySeed) -> Section:
    """Paired t-test and 95 % t-interval of first - second over the seeds that both have; None without any."""
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        empty = dict.fromkeys(("mean_first", "mean_second", *NUMBERS))
        return {"seeds": [], **empty, "notes": {"difference": "No seed has a value of both."}}
    result = asdict(compare_over_seeds([second[seed] for seed in seeds], [first[seed] for seed in seeds]))
    means = {"mean_first": result["mean_b"], "mean_second": result["mean_a"]}
    return {"seeds": seeds, **means, **{name: result[name] for name in NUMBERS}, "notes": result["notes"]}


def with_holm(rows: Sequence[Section]) -> list[Section]:
    """The same rows with Holm's correction of their p over all of them."""
    adjusted = holm([row["p"] for row in rows])
    return [{**row, "holm_p": p} for row, p in zip(rows, adjusted, strict=True)]


def decide(low: float | None, high: float | None, margin: float) -> str:
    """What a 95 % interval of a difference shows, given the margin within which differences are equivalent.

    "equivalent": it lies within +- margin (two one-sided tests, Schuirmann 1987, here at 2.5 % each). "lower" or
    "higher": it leaves 0 out. Both can hold: a difference that is there and small. Else "undecided".
    """
    if low is None or high is None:
        return "undecided"
    small = -margin < low and high < margin
    if low <= 0 <= high:
        return "equivalent" if small else "undecided"
    side = "higher" if low > 0 else "lower"
    return f"{side}, by less than the margin" if small else side


def primary_sentence(row: Section) -> str:
    """The answer to a hypothesis: row has first, second, measure, margin and decision beside `compare`'s."""
    word, first, second, decision = _word(row), row["first"], row["second"], row["decision"]
    margin = f"{100 * row['margin']:g} points"
    if decision == "equivalent":
        return f"{word} of {first} and {second} is equivalent within ±{margin}: {_minus(row)}"
    if decision == "undecided":
        return f"undecided, neither a difference nor equivalence within ±{margin} is shown: {word}, {_minus(row)}"
    text = _difference(row)
    if decision.endswith("margin"):
        return f"{text}: a difference, but within ±{margin}"
    nearest = min(abs(row["low"]), abs(row["high"]))
    return text if nearest >= row["margin"] else f"{text}; whether by more than {margin} is open"


def rest_sentence(row: Section) -> str:
    """One test among many: row has first, second, measure and holm_p beside `compare`'s."""
    p = row["holm_p"]
    shown = "which has no p" if p is None else "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    if p is None or p >= LEVEL:
        names = f"{row['first']} and {row['second']}"
        return f"no difference in {_word(row)} shown between {names}: {_minus(row)}, {shown}"
    return f"{_difference(row)}, {shown} by Holm"


def caution(row: Section, unbiased: Section) -> str | None:
    """A warning where a lower cue following, its interval without 0, comes with a lower unbiased accuracy.

    A model that is bad at everything follows no cue either.
    """
    low, high, difference = row["low"], row["high"], unbiased["difference"]
    if row["measure"] != "following" or difference is None or low is None or low <= 0 <= high:
        return None
    sign = 1 if high < 0 else -1  # the first follows less, or the second
    if sign * difference >= 0:
        return None
    lower = row["first"] if sign > 0 else row["second"]
    bounds = sorted(-sign * bound for bound in (unbiased["low"], unbiased["high"]) if bound is not None)
    interval = f", 95 % {_points(bounds[0])} to {_points(bounds[1])}" if bounds else ""
    loss = f"its unbiased accuracy is lower too, by {_points(abs(difference))} points{interval}"
    return f"{lower} follows the cue less, but {loss}: lower following through lower accuracy is not mitigation"


def _difference(row: Section) -> str:
    sign = 1 if row["difference"] > 0 else -1
    low, high = sorted((sign * row["low"], sign * row["high"]))
    size, side = _points(sign * row["difference"]), "higher" if sign > 0 else "lower"
    interval = f"95 % {_points(low)} to {_points(high)}, {_seeds(row)}"
    return f"{_word(row)} is {size} points {side} with {row['first']} than with {row['second']}, {interval}"


def _minus(row: Section) -> str:
    if row["difference"] is None:
        return "no seed has a value of both"
    text = f"{row['first']} minus {row['second']} is {_points(row['difference'])} points"
    if row["low"] is None:
        return f"{text} {_seeds(row)}, which gives no interval"
    return f"{text}, 95 % {_points(row['low'])} to {_points(row['high'])}, {_seeds(row)}"


def _seeds(row: Section) -> str:
    number = len(row["seeds"])
    return "over one seed" if number == 1 else f"over {number} seeds"


def _word(row: Section) -> str:
    return WORDS.get(row["measure"], row["measure"].replace("_", " "))


def _points(share: float) -> str:
    return f"{round(100 * share, 1) + 0.0:.1f}"  # + 0.0 turns -0.0 into 0.0
