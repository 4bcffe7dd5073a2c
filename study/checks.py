"""Self-checks of a study: limits on its models, judged by the worst of them.

A check that fails blocks the hypotheses that rest on its models. What most studies fail is a limitation instead,
a sentence that blocks nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from diagnostics.aligned import LEAST, MOST_GAIN
from diagnostics.seeds import format_number
from diagnostics.shortcut.measures import compute_accuracy_gap
from study.measurements import TEACHER, Measurement

MOST_FALL = 0.05  # of the last stage's training KL, without a remark
READABLE, TIMES_CHANCE = 0.90, 9  # the latter where a probe has few images of each of many cues


class Value(NamedTuple):
    """A number at a place, None where it was not recorded."""

    place: str
    value: float | None
    limit: float | None = None  # None for that of the rule


@dataclass(frozen=True)
class Rule:
    """A limit on a number of every model."""

    text: str
    bound: Literal["at least", "at most"]
    limit: float
    unit: str


RULES = {
    "teacher_biased": Rule(
        "aligned minus conflicting accuracy of the biased teacher", "at least", 0.20, " points"
    ),
    "teacher_unbiased": Rule(
        "the unbiased teacher's aligned minus conflicting accuracy, either way", "at most", 0.05, " points"
    ),
    "cue_readable": Rule(
        f"accuracy of a cue-only probe after augmentation ({TIMES_CHANCE} times chance suffices)",
        "at least",
        READABLE,
        " %",
    ),
    "stage1_aligned": Rule(
        "stage 1's cosine, or share of variance explained, on held-out images", "at least", LEAST, " %"
    ),
    "stage1_at_rest": Rule("gain of the same over the last quarter of stage 1", "at most", MOST_GAIN, " points"),
}


@dataclass(frozen=True)
class Check:
    """One check with its worst value; passed and value are None without a value."""

    name: str
    passed: bool | None
    value: float | None
    limit: float
    sentence: str
    failed: list[str]  # the places that fail


def run_checks(records: Sequence[Measurement]) -> list[Check]:
    """Return every check of a study in the order of `RULES`."""
    values: dict[str, list[Value]] = {name: [] for name in RULES}
    for record in records:
        place, model = _name_places(record)
        if record.method == TEACHER and record.measures:
            gap = compute_accuracy_gap(record.measures)
            if record.teacher_arm == "biased":
                values["teacher_biased"].append(Value(place, gap))
            else:
                values["teacher_unbiased"].append(Value(place, None if gap is None else abs(gap)))
        limit = min(READABLE, TIMES_CHANCE / record.cue_count) if record.cue_count else READABLE
        values["cue_readable"].append(Value(place, record.numbers.get("cue_read"), limit))
        if record.alignment is not None:
            values["stage1_aligned"].append(Value(model, record.alignment.value))
            values["stage1_at_rest"].append(Value(model, record.alignment.gain))
    return [check_worst(name, found) for name, found in values.items()]


def list_failed(records: Sequence[Measurement]) -> list[str]:
    """Return the names of the checks that these models fail, in words."""
    return [check.name.replace("_", " ") for check in run_checks(records) if check.passed is False]


def list_limitations(records: Sequence[Measurement]) -> list[str]:
    """Return a sentence for what restricts the answers and is no check."""
    falls = [(fall, _name_places(one)[1]) for one in records if (fall := compute_final_fall(one.kl)) is not None]
    more = [one for one in falls if one[0] > MOST_FALL]
    if not more:
        return []
    worst, where = max(more)
    return [
        f"Limitation: the last stage's training KL still fell by more than {100 * MOST_FALL:g} % from the last "
        f"quarter of epochs but one to the last in {len(more)} of {len(falls)} models, at most by "
        f"{format_number(100 * worst, 1)} % ({where}); more epochs may change the answers."
    ]


def _name_places(record: Measurement) -> tuple[str, str]:
    """Return the place of a training and of its model, in words."""
    place = ", ".join(filter(None, [record.place, record.teacher, f"seed {record.seed}"]))
    return place, f"{record.method}, {place}"


def check_worst(name: str, values: Iterable[Value]) -> Check:
    """Return a check by the worst value of all places, and name the places that fail."""
    rule = RULES[name]
    sign = 1 if rule.bound == "at least" else -1
    found = [
        (sign * (value - limit), value, limit, place)
        for place, value, own in values
        if value is not None
        for limit in [rule.limit if own is None else own]
    ]
    if not found:
        return Check(name, None, None, rule.limit, f"not recorded: {rule.text}", [])
    _, worst, limit, where = min(found, key=lambda one: one[0])
    failed = [place for excess, _, _, place in found if excess < 0]
    result = f"{len(failed)} of {len(found)} fail" if failed else f"passed by all {len(found)}"
    value = f"{format_number(100 * worst, 1)}{rule.unit} ({where})"
    bound = f"{rule.bound} {100 * limit:g}{rule.unit}"
    sentence = f"{rule.text} must be {bound}: {result}, at worst {value}"
    return Check(name, not failed, float(worst), limit, sentence, failed)


def compute_final_fall(history: Sequence[float]) -> float | None:
    """Return the relative fall of the mean between the last two quarters of epochs.

    None with fewer than two epochs. Means, since every epoch shows other views, whose KL differs by itself.
    """
    epochs = max(1, len(history) // 4)
    if len(history) < 2:
        return None
    before, last = np.mean(history[-2 * epochs : -epochs]), np.mean(history[-epochs:])
    return float(1 - last / before) if before > 0 else 0.0


def describe_unaligned(method: str, records: Iterable[Measurement]) -> str:
    """Return a remark on a method whose stage 1 had not aligned, or nothing."""
    verdicts = [record.alignment for record in records if record.alignment is not None]
    words = Counter(verdict.word for verdict in verdicts if verdict.word != "aligned")
    if not words:
        return ""
    counted = ", ".join(f"{word} in {count} of {len(verdicts)} seeds" for word, count in words.items())
    return f" (stage 1 of {method}: {counted})"
