"""The overrides of a small study with two hypotheses, for the tests of this folder."""

from __future__ import annotations

GRID = (
    "study.grid=[{shortcut.conflicting: [0.1, 0.3], shortcut.teacher: [biased, unbiased], "
    "shortcut.students: [biased, unbiased]}]"
)
STATED = (
    "study.hypotheses={H1: {first: crd_kd, second: two_stage, where: {shortcut.teacher: biased}}, "
    "H2: {first: two_stage, second: scratch, exceeds: 0, where: {shortcut.teacher: biased}}}"
)
TRIES = "study.tries={trained: [two_stage, head]}"
SHORT = ("teacher.epochs=1", "crd.epochs=1", "kd.epochs=1")
SMALL = ("name=s", "shortcut.cue=patch", "data.val_fraction=0.25", *SHORT)
STUDY = (
    *SMALL,
    "baselines.methods=[scratch, crd_kd]",
    "variants={head: {kd: {train: head}}}",
    GRID,
    STATED,
    TRIES,
)
