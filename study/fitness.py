"""Whether a study and its models were fit to answer, from what was recorded of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from diagnostics.shortcut.measures import accuracy_gap
from study.checks import (
    Check,
    biased_teachers,
    converged,
    cue_readable,
    final_fall,
    stage1_aligned,
    stage1_at_rest,
    unbiased_teachers,
)
from study.measurements import Measurement

TEACHER = "teacher"  # the method name of the teachers' own records


def checks(records: Sequence[Measurement]) -> list[Check]:
    """Return what a study must show before its answer counts."""
    gaps: dict[str, list[tuple[str, float | None]]] = {"biased": [], "unbiased": []}
    cue_read, falls = [], []
    levels: list[tuple[str, float | None]] = []
    gains: list[tuple[str, float | None]] = []
    for record in records:
        place = f"{record.place}, seed {record.seed}"
        if record.method == TEACHER and record.measures:
            gaps[record.teacher_arm].append((place, accuracy_gap(record.measures)))
        cue_read.append((place, record.numbers.get("cue_read")))
        falls.append((f"{record.method}, {place}", final_fall(record.kl)))
        if record.alignment is not None:
            levels.append((f"{record.method}, {place}", record.alignment.value))
            gains.append((f"{record.method}, {place}", record.alignment.gain))
    return [
        biased_teachers(gaps["biased"]),
        unbiased_teachers(gaps["unbiased"]),
        cue_readable(cue_read),
        stage1_aligned(levels),
        stage1_at_rest(gains),
        converged(falls),
    ]


def unaligned(method: str, records: Iterable[Measurement]) -> str:
    """Return what a sentence on a method adds where its stage 1 had not aligned, or was still at it."""
    verdicts = [record.alignment for record in records if record.alignment is not None]
    words = Counter(verdict.word for verdict in verdicts if verdict.word != "aligned")
    if not words:
        return ""
    counted = ", ".join(f"{word} in {count} of {len(verdicts)} seeds" for word, count in words.items())
    return f" (stage 1 of {method}: {counted})"
