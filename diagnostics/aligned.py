"""Verdict on stage 1: did it align the student's features?

A two-stage result from features that were never aligned says nothing of the method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from diagnostics.names import find_staged
from diagnostics.plain import get_section
from diagnostics.seeds import format_number

Word = Literal["aligned", "still improving", "not aligned"]
MEASURES = {  # the first that was measured counts; a projection that fits nothing explains 0, as a cosine of 0
    "explained_": "variance explained",
    "cosine_": "cosine",
}
LEAST = 0.5  # of either: features with less are not aligned
MOST_GAIN = 0.02  # over the last quarter of the epochs: with more, alignment still improves


@dataclass(frozen=True)
class AlignmentVerdict:
    """The last value of a measure, its gain over the last quarter of the epochs, and the verdict."""

    measure: str  # kind and tap: "cosine_last"
    value: float
    gain: float | None  # None with a single epoch
    word: Word

    @property
    def sentence(self) -> str:
        gain = (
            ""
            if self.gain is None
            else f", {format_number(self.gain, 3, '+')} over the last quarter of its epochs"
        )
        value = format_number(self.value, 2)
        what = next(kind for kind in MEASURES if self.measure.startswith(kind))
        place = f"{MEASURES[what]} at the {self.measure.removeprefix(what)} tap"
        return f"{place} {value} on images it did not train on{gain}: {self.word}"


def evaluate_stage1(
    curves: Mapping[str, Sequence[Mapping[str, float]]], config: Mapping[str, Any], main: str | None
) -> AlignmentVerdict | None:
    """Evaluate a report's stage 1; None if it is not on record, or not `main`'s.

    Args:
        curves: measures of each epoch, by model.
        config: of the run, as recorded.
    """
    is_own = main is not None and main == find_staged(get_section(config, "methods"))
    return evaluate_alignment(curves.get("stage1", ())) if is_own else None


def evaluate_alignment(history: Sequence[Mapping[str, float]]) -> AlignmentVerdict | None:
    """Evaluate a stage 1 by its last tap; None where no measure is on record."""
    names = list(dict.fromkeys(name for epoch in history for name in epoch))
    by_kind = [[name for name in names if name.startswith(kind)] for kind in MEASURES]
    taps = next((found for found in by_kind if found), None)
    if taps is None:
        return None
    measure = next((name for name in taps if name.endswith("_last")), taps[-1])
    values = [epoch[measure] for epoch in history if measure in epoch]
    quarter = max(1, len(values) // 4)
    gain = values[-1] - values[-1 - quarter] if len(values) > quarter else None
    word: Word = "aligned" if values[-1] >= LEAST else "not aligned"
    if gain is not None and gain > MOST_GAIN:
        word = "still improving"
    return AlignmentVerdict(measure, values[-1], gain, word)
