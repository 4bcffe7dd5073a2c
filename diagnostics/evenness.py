"""Whether the students of a comparison were given the same, said in sentences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from diagnostics.budget import Training
from diagnostics.names import listed
from diagnostics.recording import Meta
from diagnostics.results import Given

NOT_RECORDED = "How these models were trained is not in this recording: evaluate the run again for it."
NO_PAIR = "There is no two-stage student with a baseline beside it: no comparison of what they were given."
Trainings = Sequence[Training]


def given(models: Sequence[Meta]) -> Given | None:
    """What each model was given and where that was not even; None for two files of weights."""
    if any(model.method == "student" and not model.history for model in models):  # a variant may be called so
        return None
    found = {model.name: model.trainings for model in models}
    return Given(found, sentences(found))


def sentences(models: Mapping[str, Trainings | None]) -> list[str]:
    """Where two_stage, its variants and the baselines were not given the same, and one on what was even.

    models: by name, the trainings that each went through; teacher and stage 1 are not compared.
    """
    students = {name: one for name, one in models.items() if one and name not in ("teacher", "stage1")}
    baselines = {
        name: one[0]
        for name, one in students.items()
        if len(one) == 1 and one[0].job in (name, f"baseline_{name}")
    }
    two_stage = students.get("two_stage")
    if all(trainings is None for trainings in models.values()):
        return [NOT_RECORDED]
    if two_stage is None or not baselines:
        return [NO_PAIR]
    pair = {name: students[name] for name in (*baselines, "two_stage")}
    lines, even = _ended_early(students, two_stage, baselines), []
    for what, show in ASPECTS.items():
        values = {name: text for name, one in pair.items() if (text := show(one))}
        if len(set(values.values())) > 1:
            lines.append(f"Not even in {what}: {_grouped(values)}.")
        elif len(values) > 1:
            even.append(f"{what} ({next(iter(values.values()))})")
    if even:
        lines.append(f"Even between two_stage and the baselines ({listed(list(baselines))}): {', '.join(even)}.")
    return lines + _of_variants(students, two_stage, baselines)


def _ended_early(
    students: Mapping[str, Trainings], two_stage: Trainings, baselines: Mapping[str, Training]
) -> list[str]:
    """One sentence for each training that ended before its epochs were over."""
    found = {one.job: (_title(one, name), one) for name, trainings in students.items() for one in trainings}
    lines = {job: _ended(title, one) for job, (title, one) in found.items() if one.ended_early}
    total = sum(training.epochs for training in two_stage)
    more = {training.epochs - total for training in baselines.values()}
    own = [training.job for training in two_stage if training.ended_early]
    if own and len(more) == 1 and min(more) > 0:
        lines[own[-1]] += f", so the baselines had {more.pop()} more than two_stage"
    return [f"{line}." for line in lines.values()]


def _title(training: Training, name: str) -> str:
    """A training at the head of a sentence; of a variant it says whose."""
    kind = {"stage1": "Stage 1", "stage2": "Stage 2"}.get(training.job.partition("_")[0], name)
    return f"{kind} of {name}" if "_" in training.job and kind != name else kind


def _ended(title: str, training: Training) -> str:
    return f"{title} ended by plateau after {training.epochs} of {training.planned} epochs"


def _of_variants(
    students: Mapping[str, Trainings], two_stage: Trainings, baselines: Mapping[str, Training]
) -> list[str]:
    """Where variants differ from two_stage in the images and epochs that they were given."""
    variants = {name: one for name, one in students.items() if name not in baselines and name != "two_stage"}
    lines = []
    balanced = {name: one[-1].images for name, one in variants.items() if one[-1].balanced}
    if balanced:
        lines.append(
            f"Trained on {max(balanced.values()):,} balanced, held-out images: the classifier of "
            f"{listed(list(balanced))}; that of two_stage on {two_stage[-1].images:,} training images."
        )
    for what in ("epochs", "the epoch reported"):
        own = ASPECTS[what](two_stage)
        others = {name: text for name, one in variants.items() if (text := ASPECTS[what](one)) != own}
        if others:
            lines.append(f"Variants that differ from two_stage ({own}) in {what}: {_grouped(others)}.")
    return lines


def _total(of: Callable[[Training], int]) -> Callable[[Trainings], str]:
    return lambda trainings: f"{sum(map(of, trainings)):,}"


def _kl(trainings: Trainings) -> str:
    """Empty for a baseline without a KL term, which it is not to have."""
    last = trainings[-1]
    if last.alpha is None or last.temperature is None:
        return "none" if last.job.startswith("stage2") else ""
    return f"{last.alpha:g} and {last.temperature:g}"


def _batches(trainings: Trainings) -> str:
    return " + ".join(dict.fromkeys(batches_of(training) for training in trainings))


def batches_of(training: Training) -> str:
    """Images a step, those of several batches as "4 x 32"."""
    size = str(training.batch_size)
    return size if training.accumulate == 1 else f"{training.accumulate} x {size}"


ASPECTS: dict[str, Callable[[Trainings], str]] = {
    "epochs": _total(lambda training: training.epochs),
    "images seen": _total(lambda training: training.seen),
    "batch size": _batches,
    "alpha and T of the KL term": _kl,
    "the epoch reported": lambda trainings: trainings[-1].reported,
}


def _grouped(values: Mapping[str, str]) -> str:
    """Names that share a value together: "kd and crd 24, two_stage 19"."""
    groups: dict[str, list[str]] = {}
    for name, text in values.items():
        groups.setdefault(text, []).append(name)
    return ", ".join(f"{listed(names)} {text}" for text, names in groups.items())
