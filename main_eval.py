"""Compare the models of a run, or the runs of a study: statistics, similarity, figures, and a report.

python main_eval.py runs/digits
python main_eval.py runs/shortcut_digits    # a study: from the recordings of its runs alone
"""

from __future__ import annotations

from errors import UserError, end_at_once, ending_at_once, exit_code, handle_signals

if __name__ == "__main__":  # Ctrl-C while modules are imported is no traceback
    handle_signals(end_at_once)

import argparse
import json
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from diagnostics.plain import to_plain
from settings.command_line import CommandLine, read_folder, read_path
from settings.reading import DEFAULT_CONFIG, load_config

if TYPE_CHECKING:  # torch and what stands on it take seconds to import: functions do so once they need it
    from diagnostics.export.card import Export
    from diagnostics.recording import Recording
    from training.experiment import Experiment

# what takes seconds to import, with all that stands below it; a study's report runs no network
HEAVY = {"run": ("diagnostics.subjects", "diagnostics.report.folder"), "study": ("study.report",)}
PLANTED = "Trained with a planted cue: these are the test images without it, --phase study shows them under it."

DEFAULT_OUTPUT = Path("runs")

# what each way of calling reads; anything else that is given with it is refused, since it would be ignored
ALWAYS = {"quiet", "debug", "verbose"}
CHOOSES = {"config", "set", "output_dir"}
READS = {
    "--counts": {"counts", "json"},
    "--compare": {"compare", "device", "json", "output_dir"},
    "RUN_DIR --export": {"run", "export", "quantize", "model", "seed", "device"},
    "--export": {"export", "quantize", "model", "seed", "device", *CHOOSES},
    "--teacher --student --export": {"teacher", "student", "export", "quantize", "device", "config", "set"},
    "--teacher --student": {"teacher", "student", "device", "json", *CHOOSES},
    "predictions.npz": {"run", "json"},
    "RUN_DIR": {"run", "device", "json"},
    "no RUN_DIR": {"device", "json", *CHOOSES},
    "STUDY_DIR": {"run", "json", *CHOOSES},
}


def make_parser() -> CommandLine:
    parser = CommandLine(__doc__)
    parser.add_argument(
        "run",
        nargs="?",
        type=read_path,
        help="folder of a run or study, or a run's eval/predictions.npz (default: of the config in --output-dir)",
    )
    parser.add_argument(
        "--teacher", type=read_path, metavar="CKPT", help="weights of teacher.arch, with --student"
    )
    parser.add_argument(
        "--student", type=read_path, metavar="CKPT", help="weights of student.arch, with --teacher"
    )
    parser.add_argument(
        "--config",
        type=read_path,
        default=DEFAULT_CONFIG,
        help="for --teacher and --student, or to find a run by name",
    )
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", action="extend", help="override fields of --config"
    )
    parser.add_argument(
        "--counts",
        type=int,
        nargs=4,
        metavar=("A", "B", "C", "D"),
        help="statistics of four counts: both right, only the first, only the second, both wrong",
    )
    parser.add_argument("--compare", type=read_path, nargs="+", metavar="RUN_DIR", help="several runs on one page")
    parser.add_argument("--export", type=read_folder, metavar="DIR", help="write one model for deployment")
    parser.add_argument("--quantize", action="store_true", help="with --export: int8 too, and what it costs")
    parser.add_argument(
        "--model", help="which model of a run to export (default: two_stage, else the last staged method)"
    )
    parser.add_argument("--seed", type=int, help="of which seed (default: the run's first)")
    parser.add_argument("--output-dir", type=read_folder, default=DEFAULT_OUTPUT, help="where run folders are")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    parser.add_argument("--json", action="store_true", help="print JSON in place of text")
    parser.add_argument("--verbose", action="store_true", help="print the tables of the report, too")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.add_argument("--debug", action="store_true", help="with a refusal, show where it came from")
    return parser


def way_of(arguments: argparse.Namespace) -> str:
    """Which of `READS` a call is."""
    if arguments.counts is not None:
        return "--counts"
    if arguments.compare is not None:
        return "--compare"
    if (arguments.teacher is None) != (arguments.student is None):
        raise UserError("--teacher and --student go together: give both files of weights")
    files = arguments.teacher is not None
    if not files and arguments.run is not None and arguments.run.suffix == ".npz":
        return "predictions.npz"
    if arguments.export is not None:
        return "--teacher --student --export" if files else "RUN_DIR --export" if arguments.run else "--export"
    if files:
        return "--teacher --student"
    return "no RUN_DIR" if arguments.run is None else "RUN_DIR"


def refuse_ignored(arguments: argparse.Namespace, given: set[str], way: str) -> None:
    """Raise `UserError` for an argument that was given and that this way of calling does not read."""
    for name in sorted(given - READS[way] - ALWAYS):
        shown = f"RUN_DIR {arguments.run}" if name == "run" else f"--{name.replace('_', '-')}"
        why = ", which has its own config" if way.startswith("RUN_DIR") and name in CHOOSES else ""
        why = ", which is read from its runs' recordings alone" if way == "STUDY_DIR" else why
        raise UserError(f"{shown} is not read together with {way}{why}: leave it out")
    keys = [word.partition("=")[0].strip() for word in arguments.set]
    if way in ("no RUN_DIR", "--export") and set(keys) - {"name"}:
        key = next(key for key in keys if key != "name")
        raise UserError(f"--set {key}: a run has its own config, only name=... is read here: leave it out")


def evaluate_counts(counts: list[int], as_json: bool) -> None:
    with ending_at_once():
        from diagnostics.report.terminal import counts_text
        from diagnostics.statistics import Counts, paired_statistics

    try:
        statistics = paired_statistics(Counts(*counts))
    except ValueError as error:
        raise UserError(f"--counts: {error}") from None
    print(json.dumps(to_plain(statistics), indent=2) if as_json else counts_text(statistics))


def evaluate_predictions(path: Path, arguments: argparse.Namespace) -> None:
    """Report what was recorded before."""
    from diagnostics import recording_file

    if path.exists() and not path.is_file():
        raise UserError(f"{path} is no file: name a recording (predictions.npz) or a run's folder")
    try:
        found = recording_file.read(path)
    except ValueError as error:
        raise UserError(str(error)) from None
    report_on(found, path.parent, arguments)


def evaluate_files(arguments: argparse.Namespace) -> None:
    """Report on two files of weights, in a folder with the names of their hashes, or export the student's."""
    from diagnostics.export.card import lines
    from diagnostics.export.pack import export_subject, refuse_export
    from diagnostics.subjects import record, subjects_of_files
    from models.machine import choose_device, open_machine
    from training.experiment import open_experiment
    from training.run.run_folder import RunFolder

    device = choose_device(arguments.device)
    if arguments.export is not None:
        refuse_export(arguments.export, arguments.quantize)
    config = load_config(arguments.config, arguments.set)
    machine = open_machine(config.precision, device, arguments.quiet)
    experiment = open_experiment(config, RunFolder(arguments.output_dir / config.name), machine)
    teacher, student = subjects = subjects_of_files(experiment, arguments.teacher, arguments.student)
    if arguments.export is not None:
        made = export_subject(experiment, student, teacher, arguments.export, quantize=arguments.quantize)
        print("\n".join(lines(made)))
    else:
        folder = arguments.output_dir / f"eval-{'-'.join(subject.weights_hash[:8] for subject in subjects)}"
        report_on(record(experiment, subjects, folder), folder, arguments)


def report_on(found: Recording, folder: Path, arguments: argparse.Namespace) -> None:
    """Write the report of a recording and print its summary, or its tables with `--verbose`."""
    from diagnostics.report.folder import write_report
    from diagnostics.report.summary import summarise
    from diagnostics.tables.catalogue import summary_text

    report = write_report(found, folder)
    if arguments.json:
        print(json.dumps(to_plain(report)))
        return
    if arguments.verbose:
        print(summary_text(report))
    print(summarise(report))
    if report.context.config.get("shortcut", {}).get("cue", "none") not in ("none", "file"):
        print(PLANTED)
    print(f"report: {folder}/report.html (tables/, figures/, report.json, predictions.npz beside it)")


def evaluate_study(folder: Path, as_json: bool) -> None:
    """Report what was recorded of a study."""
    from study.answer import format_study
    from study.measurements import load_measurements
    from study.report import write_study

    measured, context = load_measurements(folder)
    if not measured:
        raise UserError(f"{folder} holds no recorded run yet: run python main.py --phase study")
    report = write_study(measured, context, folder / "eval")
    if as_json:
        print(json.dumps(to_plain(report)))
        return
    print(format_study(report))
    print(f"files: {folder}/eval/report.html, report.json, tables/, figures/")


def export_of_run(folder: Path, open_at: Callable[[Path], Experiment], arguments: argparse.Namespace) -> Export:
    """Write one model of a run for deployment, refused before anything is loaded where that is possible."""
    from diagnostics.export.pack import export_subject, refuse_export
    from diagnostics.subjects import find_subject, teacher_of

    refuse_export(arguments.export, arguments.quantize)
    experiment = open_at(folder)
    subject = find_subject(experiment, arguments.model, arguments.seed)
    teacher = None if subject.method == "teacher" else teacher_of(experiment)
    return export_subject(experiment, subject, teacher, arguments.export, quantize=arguments.quantize)


def evaluate_runs(paths: list[Path], open_at: Callable[[Path], Experiment], arguments: argparse.Namespace) -> None:
    """Several runs on one page, from their own reports; one that has none that holds is evaluated first."""
    from diagnostics.report.comparison import folder_name, read_or_evaluate, refuse_twice, write_comparison
    from diagnostics.report.terminal import runs_text

    refuse_twice(paths)
    runs = [read_or_evaluate(path, open_at, arguments.quiet) for path in paths]
    beside = paths[0].resolve().parent if arguments.output_dir == DEFAULT_OUTPUT else arguments.output_dir
    folder = beside / folder_name(runs)
    try:
        compared = write_comparison(runs, folder)
    except ValueError as error:
        raise UserError(f"--compare: {error}") from None
    print(json.dumps(to_plain(compared)) if arguments.json else runs_text(compared, folder))


def run() -> None:
    arguments, given = make_parser().read()
    way = way_of(arguments)
    refuse_ignored(arguments, given, way)
    if "config" in READS[way]:
        load_config(arguments.config, arguments.set)  # what is wrong in it is told before the imports
    if way == "--counts":
        evaluate_counts(arguments.counts, arguments.json)
        return
    with ending_at_once():  # all that takes seconds, before anything is begun
        from study.measurements import is_study

        study = way in ("RUN_DIR", "no RUN_DIR") and is_study(folder_of(arguments))
        for name in HEAVY["study" if study else "run"]:
            import_module(name)
    if way == "predictions.npz":
        evaluate_predictions(arguments.run, arguments)
    elif way.startswith("--teacher"):
        evaluate_files(arguments)
    elif study:
        refuse_ignored(arguments, given, "STUDY_DIR")
        evaluate_study(folder_of(arguments), arguments.json)
    else:
        evaluate_models(way, arguments)


def folder_of(arguments: argparse.Namespace) -> Path:
    """The run or study that is named, or that of the config in --output-dir."""
    if arguments.run is not None:
        return Path(arguments.run)
    return Path(arguments.output_dir / load_config(arguments.config, arguments.set).name)


def evaluate_models(way: str, arguments: argparse.Namespace) -> None:
    """All ways of calling that need networks of runs."""
    from diagnostics.export.card import lines
    from diagnostics.subjects import open_run, record, subjects_of_run
    from models.machine import choose_device, open_machine
    from study.measurements import is_study
    from training.run.run_folder import RunFolder

    device = choose_device(arguments.device)

    def open_at(path: Path) -> Experiment:
        folder = RunFolder(path)
        if is_study(path):
            raise UserError(f"{path} is a study: name one of the runs in it")
        return open_run(folder, open_machine(folder.config().precision, device, arguments.quiet))

    if way == "--compare":
        evaluate_runs(arguments.compare, open_at, arguments)
    elif arguments.export is not None:
        print("\n".join(lines(export_of_run(folder_of(arguments), open_at, arguments))))
    else:
        experiment = open_at(folder_of(arguments))
        folder = experiment.folder.path / "eval"
        report_on(record(experiment, subjects_of_run(experiment), folder), folder, arguments)


if __name__ == "__main__":
    sys.exit(exit_code(run, "run again"))
