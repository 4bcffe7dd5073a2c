"""Whether stage 1 has aligned the student's features, from what it measured on held-out images after each epoch.

A two-stage result from features that were never aligned says nothing of the method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from diagnostics.seeds import plain_number

Word = Literal["aligned", "still improving", "not aligned"]
MEASURES = {  # the first that was measured counts; a projection that fits nothing explains 0, as a cosine of 0
    "explained_last": "variance explained at the last tap",
    "cosine_last": "cosine at the last tap",
}
LEAST = 0.5  # of either, from which on features count as aligned
MOST_GAIN = 0.02  # over the last quarter of the epochs, up to which alignment counts as come to rest


@dataclass(frozen=True)
class AlignmentVerdict:
    """The last value, what the last quarter of the epochs added to it, and what both mean together."""

    measure: str  # a key of MEASURES
    value: float
    gain: float | None  # None with a single epoch
    word: Word

    @property
    def sentence(self) -> str:
        gain = (
            "" if self.gain is None else f", {plain_number(self.gain, 3, '+')} over the last quarter of its epochs"
        )
        value = plain_number(self.value, 2)
        return f"{MEASURES[self.measure]} {value} on images it did not train on{gain}: {self.word}"


def alignment_verdict(history: Sequence[Mapping[str, float]]) -> AlignmentVerdict | None:
    """history: what was measured in each epoch of stage 1. None where neither measure is on record."""
    measure = next((name for name in MEASURES if any(name in epoch for epoch in history)), None)
    if measure is None:
        return None
    values = [epoch[measure] for epoch in history if measure in epoch]
    quarter = max(1, len(values) // 4)
    gain = values[-1] - values[-1 - quarter] if len(values) > quarter else None
    word: Word = "aligned" if values[-1] >= LEAST else "not aligned"
    if gain is not None and gain > MOST_GAIN:
        word = "still improving"
    return AlignmentVerdict(measure, values[-1], gain, word)
