"""Names of models, `two_stage` of the first seed and `two_stage/1` of a further one, and of stages,
`two_stage stage 1`; and the labels that tables and figures may show in place of methods.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from contextvars import ContextVar

STAGE = " stage "
_labels: ContextVar[Mapping[str, str] | None] = ContextVar("labels", default=None)


def get_method(name: str) -> str:
    """Return the method of a model or of a stage: `two_stage/1` is of `two_stage`."""
    return name.partition("/")[0].partition(STAGE)[0]


def is_first(name: str) -> bool:
    """Return whether a model is of the first seed: only the others carry theirs in the name."""
    return "/" not in name


def choose_main(students: Sequence[str]) -> str:
    """Return the student that a report is about: two_stage where it is there, else the last."""
    return "two_stage" if "two_stage" in students else students[-1]


def find_staged(methods: Mapping[str, Sized]) -> str | None:
    """Return the method whose stages are looked at one by one: two_stage, else the last of several stages.

    methods: stages by method.
    """
    staged = [name for name, stages in methods.items() if len(stages) > 1]
    return choose_main(staged) if staged else None


def join_names(names: Sequence[str]) -> str:
    """Return `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


@contextmanager
def use_labels(labels: Mapping[str, str]) -> Iterator[None]:
    """Show methods by their labels within the block; files for programs keep the methods' names."""
    token = _labels.set(labels)
    try:
        yield
    finally:
        _labels.reset(token)


def show_name(text: str) -> str:
    """Return a model's name, or a sentence, with labels in place of the methods that have one."""
    labels = _labels.get()
    if not labels:
        return text
    methods = "|".join(map(re.escape, sorted(labels, key=len, reverse=True)))
    return re.sub(rf"(?<![\w-])({methods})(?![\w-])", lambda found: labels[found[0]], text)
