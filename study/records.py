"""What was recorded of a study, finished or not, as records that numbers are made from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.reading import load_config
from configs.schema import METHODS
from diagnostics.shortcut import recording as shortcut_recording
from diagnostics.shortcut.measures import Measures, following_per_image, measures
from errors import UserError
from study.grid import StudyRun, runs_of
from study.plan import methods_of, record_folder
from training.run_folder import RunFolder


@dataclass(frozen=True)
class Record:
    """One model of one run.

    point: the grid's keys and values, without the seed. measures and per_image_following (n,), from
    `shortcut.following_per_image`, are None where no cue is planted. extra: test_top1 and other numbers, all
    summarised. For the self-checks it holds `cue_read`, the accuracy of a probe that reads the cue off augmented
    images; `kl`, the training KL of each epoch of stage 2; and `shortcut.teacher` where a teacher is unbiased
    and the grid does not say so.
    """

    point: Mapping[str, Any]
    seed: int
    method: str
    measures: Measures | None
    per_image_following: NDArray[np.float64] | None
    extra: Mapping[str, Any]


@dataclass(frozen=True)
class Hypothesis:
    """first - second in `measure`, at the points with the values of `where`; within +- margin is equivalent."""

    measure: str
    first: str
    second: str
    margin: float
    where: Mapping[str, Any]


def load_records(folder: Path) -> tuple[list[Record], dict[str, Any]]:
    """What was recorded of a study, finished or not.

    Returns:
        A record for each model of each recorded run, and what a report says beside them: name, config, points,
        seeds, methods, hypothesis (a `Hypothesis` or None), the number of runs and the
        `recorded` ones, each with point, seed, its run folder and that of its recording.

    Raises:
        UserError: the folder is no study.
    """
    if not (folder / "config.yaml").exists():
        raise UserError(f"{folder} is no study (no config.yaml in it): make one with main.py --phase study")
    config = load_config(folder / "config.yaml")
    runs = runs_of(config)
    records: list[Record] = []
    found = []
    for run in runs:
        place = RunFolder(folder / run.name)
        files = record_folder(run, place)
        if (files / "cues.json").exists():
            records += _records_of(run, shortcut_recording.read(files))
            found.append({"point": dict(run.point), "seed": run.seed, "run": place.path, "recording": files})
    stated = config.study.hypothesis
    context = {
        "name": config.name,
        "config": config.model_dump(mode="json"),
        "points": [dict(point) for point in _unique([run.point for run in runs])],
        "seeds": config.seeds,
        "methods": ["teacher", *methods_of(config)],
        "hypothesis": None if stated is None else Hypothesis(**stated.model_dump()),
        "runs": len(runs),
        "recorded": found,
    }
    return records, context


def _unique(points: Sequence[Any]) -> list[Any]:
    return [point for number, point in enumerate(points) if point not in points[:number]]


def _records_of(run: StudyRun, recording: shortcut_recording.CueRecording) -> Iterator[Record]:
    shown = [recording.shown(number) for number in range(len(recording.models))]
    teacher = next(
        (s for s, model in zip(shown, recording.models, strict=True) if model["method"] == "teacher"), None
    )
    for own, model in zip(shown, recording.models, strict=True):
        method = model["method"]
        extra = {key: model[key] for key in ("test_top1", "cue_decoding", "label_decoding") if key in model}
        if method == "teacher":
            extra |= {"cue_read": recording.about["cue_read"], "shortcut.teacher": run.config.shortcut.teacher}
        elif method not in METHODS and "kl" in model["history"]:
            extra["kl"] = model["history"]["kl"]
        measured = own and measures(own, None if method == "teacher" else teacher)
        yield Record(run.point, run.seed, method, measured, own and following_per_image(own), extra)
