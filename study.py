"""A study: every point of a grid with every seed, each a run, and what was recorded of them.

runs/STUDY/config.yaml           the config with the grid and the hypothesis, refused if it changes later
runs/STUDY/POINT-seedS/          a run like any other, with its own teacher
runs/STUDY/POINT-seedS/seedS/    its students, and cues.npz and cues.json: how they answer under cues
"""

from __future__ import annotations

import fcntl
import io
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

from config import METHODS, Config
from config_file import differing_keys, load_config, to_yaml
from diagnostics import shortcut_recording
from diagnostics.shortcut import following_per_image, measures
from diagnostics.study import Hypothesis, Record
from errors import UserError
from evaluation import subjects_of_run
from files import write_text
from machine import Machine
from study_grid import StudyRun, read_shard, runs_of
from study_plan import Study, check_study, describe_study, methods_of, record_folder, recorded
from study_sharing import copy_job
from training import distributed
from training.experiment import Experiment, RunFolder, environment
from training.phases import say
from training.teacher import is_given


def study_phase(config: Config, output_dir: Path, machine: Machine, shard: str | None, dry_run: bool) -> None:
    """`--phase study`: run the study, or describe it; `machine.quiet` leaves out the line of each run.

    Raises:
        UserError: a shard that is none, several processes, or what `run_study` raises.
    """
    if distributed.world_size() > 1:
        raise UserError("--phase study runs in one process: split it with --shard")
    study = Study(config, output_dir / config.name, replace(machine, quiet=True), read_shard(shard or "1/1"))
    if dry_run:
        say(describe_study(study))
        return
    run_study(study, machine.quiet)
    say(f"next: python main_eval.py {study.folder}")


def run_study(study: Study, quiet: bool) -> None:
    """Train and record what is missing of a shard's runs, going on where an earlier start was stopped.

    A run that fails is named and left as it is, the others go on.

    Raises:
        UserError: before anything is written, a grid that does not fit or a folder of another study; at the end,
            runs that failed.
    """
    check_study(study)
    _claim(study)
    waiting = [run for run in study.mine if not recorded(run, study.run_folder(run))]
    kept, started, failed = len(study.mine) - len(waiting), time.perf_counter(), []
    where = "" if study.shard.count == 1 else f" of shard {study.shard.number}/{study.shard.count}"
    say(f"{len(study.mine)} runs{where}, {kept} finished before")
    for number, run in enumerate(waiting, start=1):
        begun = time.perf_counter()
        try:
            counts = do_run(study, run)
        except UserError as error:
            failed.append(run.name)
            say(f"{run.name} failed: {error}")
            continue
        if not quiet:
            now = time.perf_counter()
            left = _duration((now - started) / number * (len(waiting) - number))
            done = f"{counts['trained']} jobs trained, {counts['copied']} copied, {_duration(now - begun)}"
            say(f"{kept + number}/{len(study.mine)} {run.name}: {done}; about {left} left")
    if failed:
        raise UserError(f"{len(failed)} runs failed, the first {failed[0]}: see above, the others are done")


def _claim(study: Study) -> None:
    """Write the study's config, or see that it is the one that is there; seeds may be added."""
    path = study.folder / "config.yaml"
    if not path.exists() and study.folder.exists() and any(study.folder.glob("[!.]*")):
        raise UserError(f"{study.folder} holds files but no config.yaml: choose another --set name=...")
    with _locked(study.folder):
        seeds = study.config.seeds
        if path.exists():
            old = load_config(path)
            keys = differing_keys(old, study.config)
            if keys:
                raise UserError(
                    f"{study.folder} is a study with other values of {', '.join(keys)}: "
                    "choose another --set name=..., or remove the folder to start over"
                )
            seeds = list(dict.fromkeys([*old.seeds, *seeds]))
        write_text(path, to_yaml(study.config.model_copy(update={"seeds": seeds})))
        write_text(study.folder / "environment.json", json.dumps(environment(), indent=2) + "\n")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time: shards start together."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def do_run(study: Study, run: StudyRun) -> Counter[str]:
    """Train, or copy from another run, each job that is missing, and record; counts the jobs of either way."""
    experiment, folder, counts = study.open(run), study.run_folder(run), Counter[str]()
    if (folder.path / "config.yaml").exists():
        keys = differing_keys(folder.config(), run.config)
        if keys:
            raise UserError(f"{folder.path} was made with other values of {', '.join(keys)}: remove it")
    else:
        folder.path.mkdir(parents=True, exist_ok=True)
        write_text(folder.path / "environment.json", (study.folder / "environment.json").read_text("utf-8"))
        write_text(folder.path / "config.yaml", to_yaml(run.config))
    for job in study.jobs(run):
        given = job.folder == folder.teacher and is_given(experiment)
        if job.folder.finished or given:
            continue
        twin = study.twin(run, job)
        if twin is not None:
            copy_job(twin, job.folder)
        else:
            with redirect_stdout(io.StringIO()):  # a run is one line
                job.train(experiment)
        counts["trained" if twin is None else "copied"] += 1
    _record(experiment, run)
    return counts


def _record(experiment: Experiment, run: StudyRun) -> None:
    subjects = [subject for subject in subjects_of_run(experiment) if subject.classifies]
    about = {"point": dict(run.point), "seed": run.seed, "shortcut": run.config.shortcut.model_dump(mode="json")}
    recording = shortcut_recording.record_cues(subjects, experiment.data, experiment.machine, about)
    shortcut_recording.write(recording, record_folder(run, experiment.folder))


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if hours < 2 else f"{hours:.1f} h"


def load_records(folder: Path) -> tuple[list[Record], dict[str, Any]]:
    """What was recorded of a study, finished or not.

    Returns:
        A record for each model of each recorded run, and what a report says beside them: name, config, points,
        seeds, methods, hypothesis (a `diagnostics.study.Hypothesis` or None), the number of runs and the
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
