"""Compare the models of a run, or the runs of a study: statistics, similarity, figures, and a report.

python main_eval.py runs/digits
python main_eval.py runs/shortcut_digits    # a study: from the recordings of its runs alone
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path

import torch

from configs.reading import DEFAULT_CONFIG, load_config
from dataset.prepare import prepare
from dataset.sources import load_source
from diagnostics import recording
from diagnostics.plain import to_plain
from diagnostics.recording import Recording, Subject
from diagnostics.report.folder import write_report
from diagnostics.report.terminal import counts_text, runs_text
from diagnostics.runs import compare_runs
from diagnostics.statistics import Counts, paired_statistics
from diagnostics.subjects import open_run, record, subjects_of_files, subjects_of_run
from diagnostics.tables.catalogue import summary_text
from errors import UserError, exit_code
from models.export import export_model
from models.machine import choose_device, open_machine
from study.answer import study_text
from study.examples import choose_examples
from study.measurements import load_measurements
from study.report import write_study
from training.experiment import Experiment
from training.run_folder import RunFolder

PLANTED = "Trained with a planted cue: these are the test images without it, --phase study shows them under it."
EXPORT_IMAGES = 256  # test images on which an exported file is compared with the model


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "run",
        nargs="?",
        type=Path,
        help="folder of a run or study, or a run's eval/predictions.npz (default: of the config in --output-dir)",
    )
    parser.add_argument("--teacher", type=Path, metavar="CKPT", help="weights of teacher.arch, with --student")
    parser.add_argument("--student", type=Path, metavar="CKPT", help="weights of student.arch, with --teacher")
    parser.add_argument(
        "--config", type=Path, default=DEFAULT_CONFIG, help="for --teacher and --student, or a default"
    )
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", action="extend", help="override fields"
    )
    parser.add_argument(
        "--counts",
        type=int,
        nargs=4,
        metavar=("A", "B", "C", "D"),
        help="statistics of four counts: both right, only the first, only the second, both wrong",
    )
    parser.add_argument("--compare", type=Path, nargs="+", metavar="RUN_DIR", help="put several runs in one table")
    parser.add_argument("--export", type=Path, metavar="DIR", help="write the run's student for deployment")
    parser.add_argument("--output-dir", type=Path, default=Path("runs"), help="where run folders are")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    parser.add_argument("--json", action="store_true", help="print JSON in place of tables")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser.parse_args()


def evaluate_counts(counts: list[int], as_json: bool) -> None:
    try:
        statistics = paired_statistics(Counts(*counts))
    except ValueError as error:
        raise UserError(f"--counts: {error}") from None
    print(json.dumps(to_plain(statistics), indent=2) if as_json else counts_text(statistics))


def evaluate_run(arguments: argparse.Namespace) -> None:
    """Record, analyse and report one run, two files of weights, or what was recorded before."""
    if arguments.run is not None and arguments.run.suffix == ".npz":
        recordings, folder = _read(arguments.run), arguments.run.parent
    else:
        experiment, subjects, folder = _subjects(arguments)
        recordings = record(experiment, subjects, folder)
    report = write_report(recordings, folder)
    if arguments.json:
        print(json.dumps(to_plain(report)))
        return
    print(summary_text(report))
    if report.context.config.get("shortcut", {}).get("cue", "none") not in ("none", "file"):
        print(PLANTED)
    print(f"files: {folder}/report.html, report.json, predictions.npz, tables/, figures/")


def is_study(folder: Path) -> bool:
    """Whether a folder is one of a study: runs below it were recorded, or it is no run and has a grid."""
    run = RunFolder(folder)
    if not (folder / "config.yaml").exists():
        return False
    return any(folder.glob("*/*/cues.json")) or bool(run.config().study.grid and not run.seeds())


def evaluate_study(folder: Path, as_json: bool) -> None:
    """Report what was recorded of a study."""
    measured, context = load_measurements(folder)
    if not measured:
        raise UserError(f"{folder} holds no recorded run yet: run python main.py --phase study")
    report = write_study(measured, context, folder / "eval", choose_examples(context))
    if as_json:
        print(json.dumps(to_plain(report)))
        return
    print(study_text(report))
    print(f"files: {folder}/eval/report.html, report.json, tables/, figures/")


def _folder(arguments: argparse.Namespace) -> Path:
    return arguments.run or arguments.output_dir / load_config(arguments.config, arguments.set).name


def _subjects(arguments: argparse.Namespace) -> tuple[Experiment, list[Subject], Path]:
    device = choose_device(arguments.device)
    config = load_config(arguments.config, arguments.set)
    if arguments.teacher is None:
        folder = RunFolder(_folder(arguments))
        machine = open_machine(folder.config().precision, device, arguments.quiet)
        experiment = open_run(folder, machine)
        return experiment, subjects_of_run(experiment), folder.path / "eval"
    machine = open_machine(config.precision, device, arguments.quiet)
    data = prepare(load_source(config.data), config.data, device, config.shortcut)
    experiment = Experiment(config, data, machine, RunFolder(arguments.output_dir / config.name))
    subjects = subjects_of_files(experiment, arguments.teacher, arguments.student)
    hashes = "-".join(subject.weights_hash[:8] for subject in subjects)
    return experiment, subjects, arguments.output_dir / f"eval-{hashes}"


def _read(path: Path) -> Recording:
    try:
        return recording.read(path)
    except ValueError as error:
        raise UserError(str(error)) from None


def export_student(arguments: argparse.Namespace) -> None:
    """Write the two-stage student of the run's first seed for deployment."""
    experiment, _, _ = _subjects(arguments)
    job = experiment.folder.job(experiment.folder.seeds()[0], "stage2")
    if not job.finished:
        raise UserError(f"--export: {job.path} is not finished, run python main.py --phase kd first")
    network = experiment.config.student
    model = experiment.trained(network, job)
    count = min(EXPORT_IMAGES, len(experiment.data.test))
    images = experiment.data.test.normalised(torch.arange(count))
    for exported in export_model(model, images, partial(experiment.build, network), arguments.export):
        shown = exported.note or f"largest difference in logits {exported.difference:.2g} on {count} test images"
        print(f"{exported.path}: {shown}")


def evaluate_runs(arguments: argparse.Namespace) -> None:
    """Several runs in one table; each is recorded first where its predictions are missing or out of date."""
    runs = []
    for path in arguments.compare:
        arguments.run = path
        experiment, subjects, folder = _subjects(arguments)
        runs.append(record(experiment, subjects, folder))
    try:
        comparison = compare_runs(runs)
    except ValueError as error:
        raise UserError(f"--compare: {error}") from None
    print(json.dumps(to_plain(comparison)) if arguments.json else runs_text(comparison))


def run() -> None:
    arguments = parse_arguments()
    if arguments.counts is not None:
        evaluate_counts(arguments.counts, arguments.json)
    elif arguments.compare is not None:
        evaluate_runs(arguments)
    elif arguments.export is not None:
        export_student(arguments)
    elif (arguments.teacher is None) != (arguments.student is None):
        raise UserError("--teacher and --student go together: give both files of weights")
    elif arguments.teacher is None and is_study(folder := _folder(arguments)):
        evaluate_study(folder, arguments.json)
    else:
        evaluate_run(arguments)


if __name__ == "__main__":
    sys.exit(exit_code(run))
