"""Measurements of each model of a study, read from the recordings of its runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from diagnostics.aligned import AlignmentVerdict, evaluate_alignment
from diagnostics.frequency import PARTS, measure_by_frequency
from diagnostics.plain import to_plain
from diagnostics.shortcut import cue_recording_file
from diagnostics.shortcut.cued import CueRecording
from diagnostics.shortcut.measures import ShortcutMeasures, compute_following, measure_shortcut
from errors import UserError
from settings.schema import Config
from settings.stages import Part
from settings.study import Hypothesis
from study.effects import Effect, list_effects
from study.grid import Point, StudyRun, describe_point, list_points, list_runs
from study.methods import find_recording, is_end_to_end
from study.units import Unit
from training.run.run_folder import RunFolder

TEACHER = "teacher"  # the method name of the teachers' own records
MEASURED = tuple(part.name for part in fields(ShortcutMeasures) if part.name not in ("images", "shows", "notes"))
PLAIN = ("top1", "clean")  # on test images as they are: one number where no cue is planted
PROBED = ("cue_decoding", "label_decoding")
HELD_OUT = ("held_out_top1", "held_out_unbiased")
MEASURES = tuple(dict.fromkeys([*PLAIN, *PARTS, *MEASURED, "excess_following", *PROBED, *HELD_OUT]))  # all shares


def list_measures(config: Config) -> list[str]:
    """Return the measures that the models of a run have, and hypotheses may compare."""
    cue, held_out = config.shortcut.cue, config.data.val_fraction > 0
    lacking = set() if held_out else set(HELD_OUT)
    if cue == "none":
        lacking |= {*MEASURES} - {*PLAIN, *PARTS, "held_out_top1"}
    if cue == "file":  # images that are shown under their own cue alone
        lacking |= {"clean", *PARTS, "flip_rate", "excess_following"}
    return [name for name in MEASURES if name not in lacking]


@dataclass(frozen=True)
class Measurement:
    """One model of one run.

    point: the grid's keys and values, without the seed and, where it has several, without the teacher.
    measures and per_image_following (n,), from `shortcut.compute_following`, are None where no cue is planted.
    numbers: top1 and others by name, all summarised; `cue_read`, the accuracy of a probe that reads the cue off
    augmented images, is checked too.
    """

    point: Point
    seed: int
    method: str
    measures: ShortcutMeasures | None
    per_image_following: NDArray[np.float64] | None
    numbers: Mapping[str, float | None]
    kl: Sequence[float] = ()  # training KL of each epoch of the last stage, empty for methods of one
    teacher_arm: Literal["biased", "unbiased"] = "biased"  # cues that the run's teacher was trained on
    alignment: AlignmentVerdict | None = None  # of the stage 1 that it started from
    label: str = ""  # the point in words, where it is not all of its values
    teacher: str = ""  # in words, where the point has several
    teacher_hash: str = ""  # of its teacher's weights
    trained: Part = "all"  # part of the network that its last stage trains
    held_out_images: int | None = None  # None where their number was not recorded
    cue_count: int = 0  # different cues of the classes

    @property
    def unit(self) -> Unit:
        return Unit(self.seed, self.teacher)

    @property
    def place(self) -> str:
        """The point in words."""
        return self.label or describe_point(self.point)


@dataclass(frozen=True)
class RecordedRun:
    """A run of a study that was recorded."""

    point: Point
    seed: int
    run: Path  # its folder


@dataclass(frozen=True)
class StudyContext:
    """Facts of a study: its config, grid, claims and recorded runs."""

    name: str
    config: dict[str, Any]  # as JSON
    points: list[Point]
    seeds: list[int]
    hypotheses: Mapping[str, Hypothesis]
    recorded: list[RecordedRun]
    twins: Mapping[str, str] = field(default_factory=dict)  # staged method -> end-to-end method
    end_to_end: frozenset[str] = frozenset()  # methods that are trained at once, in one stage
    tries: Mapping[str, Sequence[str]] = field(default_factory=dict)  # methods by family
    choose_by: str = "held_out_top1"  # measure that chooses among tries
    effects: Sequence[Effect] = ()  # pairs of methods that show one part of decoupling
    labels: Sequence[str] = ()  # the points in words, where they are not all of their values


def load_measurements(folder: Path) -> tuple[list[Measurement], StudyContext]:
    """Return what was recorded of a study, finished or not.

    Raises:
        UserError: the folder is no study.
    """
    if not (folder / "config.yaml").exists():
        raise UserError(f"{folder} is no study (no config.yaml in it): make one with main.py --phase study")
    config = RunFolder(folder).read_config()
    runs, points = list_runs(config), list_points(config.study.grid)
    measured: list[Measurement] = []
    found = []
    for run in runs:
        place = RunFolder(folder / run.name)
        files = find_recording(run, place)
        if (files / "cues.json").exists():
            measured += _measure(run, _read(run, files))
            found.append(RecordedRun(run.point, run.seed, place.path))
    return measured, StudyContext(
        name=config.name,
        config=config.model_dump(mode="json"),
        points=[point.values for point in points],
        seeds=config.seeds,
        hypotheses=config.study.hypotheses,
        recorded=found,
        twins=config.study.twins,
        tries=config.study.tries,
        choose_by=config.study.choose_by,
        end_to_end=frozenset(
            method for run in runs for method in run.config.methods if is_end_to_end(run.config, method)
        ),
        effects=list(dict.fromkeys(effect for run in runs for effect in list_effects(run.config))),
        labels=[point.label for point in points],
    )


def _read(run: StudyRun, files: Path) -> CueRecording:
    """Return the recording of a run.

    Raises:
        UserError: it is that of another run.
    """
    found = cue_recording_file.read_cue_recording(files)
    if (found.about.point, found.about.seed) != (to_plain(dict(run.point)), run.seed):
        raise UserError(f"{files}: cues.json is the recording of another run: put back that of {run.name}")
    return found


def list_numbers(record: Measurement) -> dict[str, float | None]:
    """Return measures and numbers of a model by name."""
    shares = {name: getattr(record.measures, name) for name in MEASURED} if record.measures else {}
    return {**shares, **record.numbers}


def find_number(record: Measurement, name: str) -> float | None:
    """Return one of `list_numbers`; None where the model has none of that name."""
    return list_numbers(record).get(name)


def find_compared(record: Measurement, name: str) -> float | None:
    """Return the number that comparisons use; clean is top1 where no cue is planted."""
    if name == "clean" and record.measures is None and name not in record.numbers:
        name = "top1"
    return find_number(record, name)


def _measure(run: StudyRun, recording: CueRecording) -> Iterator[Measurement]:
    shown = [recording.get_shown(number) for number in range(len(recording.models))]
    teachers = [own for own, model in zip(shown, recording.models, strict=True) if model.method == TEACHER]
    teacher = teachers[0] if teachers else None
    for number, (own, model) in enumerate(zip(shown, recording.models, strict=True)):
        is_teacher = model.method == TEACHER
        numbers: dict[str, float | None] = {"top1": model.test_top1}
        if model.decoding is not None:
            numbers["cue_decoding"] = model.decoding.cue_decoding
            numbers["label_decoding"] = model.decoding.label_decoding
        if model.held_out is not None:
            held_out = {part.name: getattr(model.held_out, part.name) for part in fields(model.held_out)}
            numbers |= {name: value for name, value in held_out.items() if value is not None}
        if len(recording.clean):
            clean = recording.clean[number]
            numbers |= measure_by_frequency(recording.labels, clean, recording.about.class_counts)
        if is_teacher:
            numbers["cue_read"] = recording.about.cue_read
        staged = model.method in run.config.methods and not is_end_to_end(run.config, model.method)
        stage1 = [{name: value} for name, values in model.stage1.items() for value in values]
        yield Measurement(
            point=run.pooled.values,
            seed=run.seed,
            method=model.method,
            measures=measure_shortcut(own, None if is_teacher else teacher) if own else None,
            per_image_following=compute_following(own) if own else None,
            numbers=numbers,
            kl=model.history.get("kl", ()) if staged else (),
            teacher_arm=run.config.shortcut.teacher,
            alignment=evaluate_alignment(stage1),
            label=run.pooled.label,
            teacher=run.teacher,
            teacher_hash=next((one.weights_hash for one in recording.models if one.method == TEACHER), ""),
            trained="all" if is_teacher else run.config.stages[model.method][-1].train,
            held_out_images=recording.about.held_out_images,
            cue_count=len(np.unique(recording.classes_cue)),
        )
