"""Parity of the students' training budgets, in sentences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from diagnostics.budget import TrainingBudget
from diagnostics.evaluation.recording import Meta
from diagnostics.evaluation.results import BudgetParity
from diagnostics.names import join_names

NOT_RECORDED = "How these models were trained is not in this recording: evaluate the run again for it."
NO_PAIR = "There is no student with a single-stage one beside it: no comparison of what they were given."
Trainings = Sequence[TrainingBudget]


def compare_budgets(models: Sequence[Meta], main: str | None) -> BudgetParity | None:
    """Return the budget of each model; None for two files of weights."""
    if any(model.method == "student" and not model.history for model in models):  # a method may be called so
        return None
    found = {model.name: model.trainings for model in models}
    return BudgetParity(found, describe_parity(found, main))


def describe_parity(models: Mapping[str, Trainings | None], main: str | None) -> list[str]:
    """Describe the budgets of `main` beside those of single-stage students.

    Args:
        models: by name, the trainings that each went through; teacher and models without a classifier of their own
            are not compared.
        main: the student in question.
    """
    if all(trainings is None for trainings in models.values()):
        return [NOT_RECORDED]
    students = {name: one for name, one in models.items() if one and _is_compared(one)}
    own = students.pop(main or "", None)
    single = {name: one for name, one in students.items() if len(one) == 1 and one[0].starts_from is None}
    if main is None or own is None or not single:
        return [NO_PAIR]
    lines, even = _describe_early_stops({**students, main: own}, main, single), []
    for what, show in ASPECTS.items():
        values = {name: text for name, one in {**single, main: own}.items() if (text := show(one, own))}
        if len(set(values.values())) > 1:
            lines.append(f"Not even in {what}: {_group_names(values)}.")
        elif len(values) > 1:
            even.append(f"{what} ({values[main]})")
    if even:
        names = join_names(list(single))
        lines.append(f"Even between {main} and the single-stage methods ({names}): {', '.join(even)}.")
    others = {name: one for name, one in students.items() if name not in single}
    return lines + _describe_others(others, main, own)


def _is_compared(trainings: Trainings) -> bool:
    return trainings[-1].job != "teacher" and trainings[-1].train != "features"


def _describe_early_stops(
    students: Mapping[str, Trainings], main: str, single: Mapping[str, Trainings]
) -> list[str]:
    found = {one.job: one for trainings in students.values() for one in trainings if one.ended_early}
    lines = {
        job: f"{one.title} stopped early after {one.epochs} of {one.planned} epochs" for job, one in found.items()
    }
    total = sum(training.epochs for training in students[main])
    more = {one.epochs - total for (one,) in single.values()}
    own = [training.job for training in students[main] if training.ended_early]
    if own and len(more) == 1 and min(more) > 0:
        lines[own[-1]] += f", so the single-stage methods had {more.pop()} more than {main}"
    return [f"{line}." for line in lines.values()]


def _describe_others(others: Mapping[str, Trainings], main: str, own: Trainings) -> list[str]:
    """Describe other methods that differ from `main` in images or epochs."""
    lines = []
    balanced = {name: one[-1].images for name, one in others.items() if one[-1].balanced}
    if balanced:
        lines.append(
            f"Trained on {max(balanced.values()):,} balanced, held-out images: the classifier of "
            f"{join_names(list(balanced))}; that of {main} on {own[-1].images:,} training images."
        )
    for what in ("epochs", "the epoch reported"):
        known = ASPECTS[what](own, own)
        values = {name: text for name, one in others.items() if (text := ASPECTS[what](one, own)) != known}
        if values:
            lines.append(f"Other methods that differ from {main} ({known}) in {what}: {_group_names(values)}.")
    return lines


def _format_weights(trainings: Trainings, own: Trainings) -> str:
    """Return the weights of `own`'s losses; empty if one of them is missing."""
    last, wanted = trainings[-1], own[-1]
    if not wanted.losses.keys() <= last.losses.keys():
        return ""
    words = " + ".join(f"{name} {last.losses[name]}" for name in sorted(wanted.losses))
    return words if wanted.temperature is None else f"{words} at T {last.temperature:g}"


def format_batches(training: TrainingBudget) -> str:
    """Return images a step, those of several batches as "4 x 32"."""
    size = str(training.batch_size)
    return size if training.accumulate == 1 else f"{training.accumulate} x {size}"


ASPECTS: dict[str, Callable[[Trainings, Trainings], str]] = {  # of a method, beside the one in question
    "epochs": lambda trainings, own: f"{sum(one.epochs for one in trainings):,}",
    "images seen": lambda trainings, own: f"{sum(one.seen for one in trainings):,}",
    "batch size": lambda trainings, own: " + ".join(dict.fromkeys(map(format_batches, trainings))),
    "weights of losses": _format_weights,
    "the epoch reported": lambda trainings, own: trainings[-1].reported,
}


def _group_names(values: Mapping[str, str]) -> str:
    """Join names that share a value: "kd and crd 24, two_stage 19"."""
    groups: dict[str, list[str]] = {}
    for name, text in values.items():
        groups.setdefault(text, []).append(name)
    return ", ".join(f"{join_names(names)} {text}" for text, names in groups.items())
