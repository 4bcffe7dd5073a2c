"""Self-checks of a study: limits on its models, judged by the worst of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from diagnostics.aligned import LEAST, MOST_GAIN
from diagnostics.seeds import format_number
from diagnostics.shortcut.measures import compute_accuracy_gap
from study.measurements import TEACHER, Measurement

Values = Sequence[tuple[str, float | None]]  # place in words, and a number, None where it was not recorded


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
    "cue_readable": Rule("accuracy of a cue-only probe after augmentation", "at least", 0.90, " %"),
    "stage1_aligned": Rule(
        "stage 1's cosine, or share of variance explained, on held-out images", "at least", LEAST, " %"
    ),
    "stage1_at_rest": Rule("gain of the same over the last quarter of stage 1", "at most", MOST_GAIN, " points"),
    "converged": Rule(
        "fall of the last stage's training KL from the last quarter of epochs but one to the last",
        "at most",
        0.05,
        " %",
    ),
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
    values: dict[str, list[tuple[str, float | None]]] = {name: [] for name in RULES}
    for record in records:
        place = ", ".join(filter(None, [record.place, record.teacher, f"seed {record.seed}"]))
        model = f"{record.method}, {place}"
        if record.method == TEACHER and record.measures:
            gap = compute_accuracy_gap(record.measures)
            if record.teacher_arm == "biased":
                values["teacher_biased"].append((place, gap))
            else:
                values["teacher_unbiased"].append((place, None if gap is None else abs(gap)))
        values["cue_readable"].append((place, record.numbers.get("cue_read")))
        values["converged"].append((model, compute_final_fall(record.kl)))
        if record.alignment is not None:
            values["stage1_aligned"].append((model, record.alignment.value))
            values["stage1_at_rest"].append((model, record.alignment.gain))
    return [check_worst(name, found) for name, found in values.items()]


def check_worst(name: str, values: Values) -> Check:
    """Return a check by the worst value of all places, and name the places that fail."""
    rule = RULES[name]
    sign = 1 if rule.bound == "at least" else -1
    found = [(value, place) for place, value in values if value is not None]
    if not found:
        return Check(name, None, None, rule.limit, f"not recorded: {rule.text}", [])
    worst, where = min(found, key=lambda pair: sign * pair[0])
    failed = [place for value, place in found if sign * (value - rule.limit) < 0]
    result = f"{len(failed)} of {len(found)} fail" if failed else f"passed by all {len(found)}"
    value = f"{format_number(100 * worst, 1)}{rule.unit} ({where})"
    limit = f"{rule.bound} {100 * rule.limit:g}{rule.unit}"
    sentence = f"{rule.text} must be {limit}: {result}, at worst {value}"
    return Check(name, not failed, float(worst), rule.limit, sentence, failed)


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
