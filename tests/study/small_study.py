"""The overrides of a small study with two hypotheses, and made-up measures, for the tests of this folder."""

from __future__ import annotations

from dataclasses import fields

from diagnostics.shortcut.measures import ShortcutMeasures

GRID = (
    "study.grid=[{shortcut.conflicting: [0.1, 0.3], shortcut.teacher: [biased, unbiased], "
    "shortcut.students: [biased, unbiased]}]"
)
STATED = (
    "study.hypotheses={H1: {measure: following, first: crd_kd, second: two_stage, "
    "where: {shortcut.teacher: biased}}, H2: {measure: following, first: two_stage, second: scratch, exceeds: 0, "
    "where: {shortcut.teacher: biased}}}"
)
TRIES = "study.tries={trained: [two_stage, head]}"
SHORT = ("teacher.epochs=1", "training.epochs=2")  # one epoch a stage
SMALL = ("name=s", "shortcut.cue=patch", "data.val_fraction=0.25", *SHORT)
STUDY = (
    *SMALL,
    "methods=[scratch, crd_kd, two_stage]",
    "methods={head: {base: two_stage, stage2: {train: head}}}",
    GRID,
    STATED,
    TRIES,
)


def make_measures(following: float, unbiased: float, **others: float | None) -> ShortcutMeasures:
    """Return measures of which the others are None, with a note on the worst group."""
    given = {field.name: None for field in fields(ShortcutMeasures)} | {"images": 40, "shows": 4}
    notes = {"worst_group": "Too few."}
    return ShortcutMeasures(**{**given, "following": following, "unbiased": unbiased, **others, "notes": notes})
