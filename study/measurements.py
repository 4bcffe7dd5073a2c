"""What the recordings of a study's runs say of each model: the measurements that all its numbers are made from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.reading import load_config
from configs.schema import METHODS, Hypothesis
from diagnostics.shortcut import recording as shortcut_recording
from diagnostics.shortcut.measures import Measures, following_per_image, measures
from errors import UserError
from study.grid import Point, StudyRun, runs_of
from study.plan import record_folder
from training.run_folder import RunFolder


@dataclass(frozen=True)
class Measurement:
    """One model of one run.

    point: the grid's keys and values, without the seed. measures and per_image_following (n,), from
    `shortcut.following_per_image`, are None where no cue is planted. extra: test_top1 and other numbers, all
    summarised. For the self-checks it holds `cue_read`, the accuracy of a probe that reads the cue off augmented
    images; `kl`, the training KL of each epoch of stage 2; and `shortcut.teacher` where a teacher is unbiased
    and the grid does not say so.
    """

    point: Point
    seed: int
    method: str
    measures: Measures | None
    per_image_following: NDArray[np.float64] | None
    extra: Mapping[str, Any]


@dataclass(frozen=True)
class RecordedRun:
    """A run of a study that was recorded."""

    point: Point
    seed: int
    run: Path  # its folder
    recording: Path  # the folder of cues.npz and cues.json


@dataclass(frozen=True)
class StudyContext:
    """What a report says of a study beside its measurements."""

    name: str
    config: dict[str, Any]  # as JSON
    points: list[Point]
    seeds: list[int]
    hypothesis: Hypothesis | None
    recorded: list[RecordedRun]


def load_measurements(folder: Path) -> tuple[list[Measurement], StudyContext]:
    """What was recorded of a study, finished or not.

    Raises:
        UserError: the folder is no study.
    """
    if not (folder / "config.yaml").exists():
        raise UserError(f"{folder} is no study (no config.yaml in it): make one with main.py --phase study")
    config = load_config(folder / "config.yaml")
    runs = runs_of(config)
    measured: list[Measurement] = []
    found = []
    for run in runs:
        place = RunFolder(folder / run.name)
        files = record_folder(run, place)
        if (files / "cues.json").exists():
            measured += _measure(run, shortcut_recording.read(files))
            found.append(RecordedRun(run.point, run.seed, place.path, files))
    return measured, StudyContext(
        name=config.name,
        config=config.model_dump(mode="json"),
        points=_unique([run.point for run in runs]),
        seeds=config.seeds,
        hypothesis=config.study.hypothesis,
        recorded=found,
    )


def _unique(points: Sequence[Point]) -> list[Point]:
    return [point for number, point in enumerate(points) if point not in points[:number]]


def _measure(run: StudyRun, recording: shortcut_recording.CueRecording) -> Iterator[Measurement]:
    shown = [recording.shown(number) for number in range(len(recording.models))]
    teacher = next(
        (s for s, model in zip(shown, recording.models, strict=True) if model.method == "teacher"), None
    )
    for own, model in zip(shown, recording.models, strict=True):
        is_teacher = model.method == "teacher"
        extra: dict[str, Any] = {"test_top1": model.test_top1}
        if model.decoding is not None:
            extra |= {"cue_decoding": model.decoding.cue_decoding, "label_decoding": model.decoding.label_decoding}
        if is_teacher:
            extra |= {"cue_read": recording.about.cue_read, "shortcut.teacher": run.config.shortcut.teacher}
        elif model.method not in METHODS and "kl" in model.history:
            extra["kl"] = model.history["kl"]
        measured = measures(own, None if is_teacher else teacher) if own else None
        following = following_per_image(own) if own else None
        yield Measurement(run.point, run.seed, model.method, measured, following, extra)
