"""Names of models: `two_stage` of the first seed, `two_stage/1` of a further one."""

from __future__ import annotations

from collections.abc import Sequence


def method_of(name: str) -> str:
    """`two_stage/1` is of the method `two_stage`."""
    return name.rpartition("/")[0] or name


def is_first(name: str) -> bool:
    """Whether a model is of the first seed: only the others carry theirs in the name."""
    return "/" not in name


def focus(names: Sequence[str]) -> str:
    """The student that a figure is about: two-stage where it is there, else the first."""
    return next((name for name in names if name in ("two_stage", "student")), names[0])


def listed(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
