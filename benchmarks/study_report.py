"""The report of a study of 240 runs, from recordings that were made up: as slow as that of real ones.

    python -m benchmarks.study_report [STUDY_DIR]

`experiments/digits_bank/study.yaml`: 24 points, 10 seeds, 16 models a run, 497 test images under all cues, each
model right or following a cue as chance has it. Timed is `main_eval.py` on the study, as a process with its start.
With a folder the study is left there, for example to see where the time goes.

Letters: n test images, J shows an image.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from subprocess import DEVNULL
from subprocess import run as run_process

import numpy as np

from benchmarks.timing import ROOT, Claim, Timing
from benchmarks.timing import table as table_of
from diagnostics.shortcut import recording_file
from diagnostics.shortcut.cued import About, CuedModel, CueRecording, Decoding, HeldOut
from settings.reading import load_config
from study.grid import StudyRun, list_runs
from study.methods import find_recording, list_students
from training.run.run_folder import RunFolder, write_config

SEEDS, IMAGES, CLASSES = 10, 497, 10
CONFIG = ROOT / "experiments" / "digits_bank" / "study.yaml"


def made_up(run: StudyRun) -> CueRecording:
    """Make up answers of a run's models: the label more often than not, the cue's class, and what chance has."""
    rng = np.random.default_rng([run.seed, len(run.name)])
    methods = ["teacher", *list_students(run.config, run.seed)]
    labels = np.arange(IMAGES) % CLASSES
    cues = (labels[:, None] + np.arange(CLASSES)) % CLASSES  # (n, J)
    follows = rng.random((len(methods), 1, 1))
    shape = (len(methods), *cues.shape)
    guesses = np.where(rng.random(shape) < 0.7, labels[:, None], rng.integers(0, CLASSES, shape))
    predictions = np.where(rng.random(shape) < follows, cues, guesses)
    models = [
        CuedModel(
            method,
            "resnet8",
            f"{number:064x}",
            {"kl": [2.0, *rng.random(9)], "loss": [2.0, *rng.random(9)]},
            float((guesses[number, :, 0] == labels).mean()),
            Decoding(float(rng.random()), float(rng.random())),
            HeldOut(float(rng.random()), float(rng.random()), float(rng.random())),
        )
        for number, method in enumerate(methods)
    ]
    about = About(dict(run.point), run.seed, run.config.shortcut.model_dump(mode="json"), 4.0, 0.99)
    clean = guesses[:, :, 0].astype(np.int16)
    return CueRecording(about, models, labels, np.arange(CLASSES), cues, predictions.astype(np.int16), clean)


def write_study(folder: Path) -> int:
    """Write a study of made-up recordings to `folder`; gives the number of its runs."""
    config = load_config(CONFIG, [f"seeds={list(range(SEEDS))}"])
    runs = list_runs(config)
    for run in runs:
        place = RunFolder(folder / run.name)
        files = find_recording(run, place)
        files.mkdir(parents=True)
        write_config(place.path / "config.yaml", run.config)
        recording_file.write(made_up(run), files)
    write_config(folder / "config.yaml", config)
    return len(runs)


def report(folder: Path) -> Timing:
    """Time `main_eval.py` on a study: seconds of the processor, which other work changes little."""
    before = os.times()
    run_process([sys.executable, str(ROOT / "main_eval.py"), str(folder)], check=True, stdout=DEVNULL)
    after = os.times()
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    return Timing("processor time", seconds, seconds, 1, 0.0)


def claims(folder: Path | None = None) -> list[Claim]:
    with tempfile.TemporaryDirectory() as temporary:
        place = folder or Path(temporary)
        runs = write_study(place)
        timing = report(place)
    return [Claim(f"report of a study of {runs} runs", timing.seconds, "s", 15, at_most=True, timing=timing)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="where the study is left")
    print(table_of(claims(parser.parse_args().folder)))
