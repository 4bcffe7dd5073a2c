"""What an evaluation of three models on 10,000 test images costs, part by part.

    python -m benchmarks.evaluation [RUN_DIR]

Without a run: a resnet18 and two resnet8 with random weights on random 32x32 images of 100 classes. Their times
are those of trained ones, but for t-SNE and the linear probe, which depend on how the classes lie.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from dataset.files.decoded_cache import Images
from dataset.sources import Source
from diagnostics.evaluation import analysis
from diagnostics.evaluation.evaluated_models import open_run, record, subjects_of_run
from diagnostics.evaluation.pairs import right
from diagnostics.evaluation.recording import Recording, Subject
from diagnostics.report.folder import write_report
from models.machine import open_machine
from models.peak import process_peak
from models.zoo import build_model
from settings.networks import Student, Teacher
from settings.schema import Config
from training.experiment import Experiment, open_experiment
from training.run.run_folder import RunFolder

CLASSES, TRAIN, TEST = 100, 10_000, 10_000
T = TypeVar("T")


def random_subjects() -> tuple[Experiment, list[Subject]]:
    """Make three untrained networks and random images."""
    device = torch.device("cpu")
    rng = np.random.default_rng(0)
    parts = [
        Images(rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8), np.arange(count) % CLASSES)
        for count in (TRAIN, 0, TEST)
    ]
    names = [str(number) for number in range(CLASSES)]
    source = Source(parts[0], parts[1], parts[2], names)
    config = Config(name="random", teacher=Teacher(arch="resnet18"), student=Student(arch="resnet8"))
    machine = open_machine("auto", device)
    experiment = open_experiment(config, RunFolder(Path("random")), machine, source)
    subjects = []
    for name, arch in (("teacher", "resnet18"), ("kd", "resnet8"), ("two_stage", "resnet8")):
        seed = None if name == "teacher" else 0

        def build(arch: str = arch) -> torch.nn.Module:
            return machine.place(build_model(arch, CLASSES))

        subjects.append(Subject(name, name, seed, arch, name, True, True, None, [], build))
    return experiment, subjects


def timed(name: str, call: Callable[[], T]) -> T:
    """Print the time of a call; gives what the call gives."""
    start = time.perf_counter()
    found = call()
    print(f"{name:46} {time.perf_counter() - start:6.1f} s", flush=True)
    return found


def print_parts(recording: Recording, main: str | None) -> None:
    """Print the time of each family of numbers by itself; all of them are in the report's time as well."""
    models = recording.models
    teacher, *students = models
    classifiers = [model for model in models if model.meta.classifies]
    correct = {model.name: right(model, recording) for model in classifiers}
    timed("  paired statistics", lambda: analysis.paired(classifiers, correct))
    timed("  CKA, exact and by minibatches", lambda: analysis.similarities(teacher, students))
    timed("  geometry and linear probe", lambda: [analysis.shape(model, recording) for model in models])
    timed("  information on the label", lambda: [analysis.information_on_labels(m, recording) for m in models])
    timed(
        "  information on the teacher",
        lambda: [analysis.information_on_teacher(teacher, model, recording) for model in students],
    )
    timed("  t-SNE", lambda: analysis.embeddings(recording, main))


def main(run: Path | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        if run is None:
            experiment, subjects = random_subjects()
        else:
            device = torch.device("cpu")
            experiment = open_run(RunFolder(run), open_machine("auto", device))
            subjects = subjects_of_run(experiment)
        print(
            f"{len(subjects)} models, {len(experiment.data.test):,} test images, {torch.get_num_threads()} threads"
        )
        start = time.perf_counter()
        recording = record(experiment, subjects, Path(folder))
        print(f"{'recording (logits, features, corruptions, cost)':46} {time.perf_counter() - start:6.1f} s")
        report = timed(
            "report (all numbers, tables, figures, page)", lambda: write_report(recording, Path(folder))
        )
        print(f"{'together':46} {time.perf_counter() - start:6.1f} s")
        print(f"{'peak memory':46} {process_peak() / 1e9:6.2f} GB")
        print("of the report:")
        print_parts(recording, report.main)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, help="a finished run")
    main(parser.parse_args().run)
