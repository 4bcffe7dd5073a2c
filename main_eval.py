"""Compare the models of a run, or the runs of a study: statistics, similarity, figures, and a report.

python main_eval.py runs/digits
python main_eval.py runs/shortcut_digits    # a study: from the recordings of its runs alone
"""

from __future__ import annotations

from errors import UserError, exit_immediately, exit_on_signal, handle_signals, run_command

if __name__ == "__main__":  # Ctrl-C while modules are imported is no traceback
    handle_signals(exit_immediately)

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from diagnostics.names import use_labels
from diagnostics.plain import to_plain
from settings.command_line import CommandLine, read_folder, read_path
from settings.own_code import allow_code, reset_permission
from settings.reading import DEFAULT_CONFIG, load_config

if TYPE_CHECKING:  # torch and what stands on it take seconds to import: functions do so once they need it
    from diagnostics.evaluation.recording import EvaluatedModel, Recording
    from training.experiment import Experiment

# what takes seconds to import, with all that stands below it; a study's report runs no network
HEAVY = {
    "run": ("diagnostics.evaluation.evaluated_models", "diagnostics.report.folder"),
    "study": ("study.report",),
}
DEFAULT_OUTPUT = Path("runs")

# options by what they have no effect with, and are refused with
RUN = {"config", "set", "output_dir"}  # which find a run
EXPORT = {"export", "quantize", "model", "seed"}
UNUSED: dict[str, set[str]] = {
    "--counts": {*RUN, *EXPORT, "device", "quick", "labels", "probe", "allow_code"},
    "--compare": {"config", "set", *EXPORT, "quick", "probe"},
    "--teacher and --student": {"model", "seed", "allow_code"},
    "predictions.npz": {*RUN, *EXPORT, "device", "quick", "probe", "allow_code"},
    "RUN_DIR": RUN,
    "no RUN_DIR": set(),
    "STUDY_DIR": {"device", "quick", "labels", "probe", "allow_code"},
    "--export": {"json", "quick", "labels", "probe"},
    "--probe": {"quick"},
    "--teacher --student --export": {"output_dir"},
}


def make_parser() -> CommandLine:
    parser = CommandLine(__doc__)
    subject = parser.add_mutually_exclusive_group()
    choose, add = subject.add_argument, parser.add_argument
    which = "folder of a run or study, or a run's eval/predictions.npz (default: of the config in --output-dir)"
    choose("run", metavar="RUN_DIR", nargs="?", type=read_path, help=which)
    choose("--teacher", type=read_path, metavar="CKPT", help="weights of teacher.arch, with --student")
    add("--student", type=read_path, metavar="CKPT", help="weights of student.arch, with --teacher")
    add(
        "--config",
        type=read_path,
        default=DEFAULT_CONFIG,
        help="for files of weights, or to find a run by name",
    )
    add("--set", nargs="+", default=[], metavar="KEY=VALUE", action="extend", help="override fields of --config")
    counts = "statistics of four counts: both right, only the first, only the second, both wrong"
    choose("--counts", type=int, nargs=4, metavar=("A", "B", "C", "D"), help=counts)
    choose("--compare", type=read_path, nargs="+", metavar="RUN_DIR", help="several runs on one page")
    add("--quick", action="store_true", help="accuracy and paired tests alone, in seconds; writes no files")
    probe = "another data set: linear classifiers on each model's features (class folders, CSV, STL-10, CIFAR)"
    add("--probe", metavar="FOLDER", type=read_path, help=probe)
    labels = "names of methods in tables, figures and sentences: two_stage=Ours"
    add("--labels", nargs="+", default=[], metavar="METHOD=LABEL", action="extend", type=read_label, help=labels)
    add("--export", type=read_folder, metavar="DIR", help="write one model for deployment")
    add("--quantize", action="store_true", help="with --export: int8 too, and what it costs")
    add("--model", help="the model of a run to export (default: the best student on validation images)")
    add("--seed", type=int, help="of which seed (default with --model: the run's first)")
    add("--output-dir", type=read_folder, default=DEFAULT_OUTPUT, help="where run folders are")
    add("--allow-code", action="store_true", help="run networks and losses that only the run's own config names")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    add("--json", action="store_true", help="print JSON in place of text")
    add("--verbose", action="store_true", help="print the tables of the report, too")
    add("--quiet", action="store_true", help="no progress")
    add("--debug", action="store_true", help="with a refusal, show where it came from")
    return parser


def read_label(text: str) -> tuple[str, str]:
    method, _, label = text.partition("=")
    if not method.strip() or not label.strip():
        raise argparse.ArgumentTypeError(f"'{text}' is not METHOD=LABEL, such as two_stage=Ours")
    return method.strip(), label.strip()


def command_mode(arguments: argparse.Namespace) -> str:
    """Return what a call evaluates, a key of `UNUSED`."""
    if (arguments.teacher is None) != (arguments.student is None):
        raise UserError("--teacher and --student go together: give both files of weights")
    if arguments.counts is not None:
        return "--counts"
    if arguments.compare is not None:
        return "--compare"
    if arguments.teacher is not None:
        return "--teacher and --student"
    if arguments.run is None:
        return "no RUN_DIR"
    return "predictions.npz" if arguments.run.suffix == ".npz" else "RUN_DIR"


def reject_unused_args(arguments: argparse.Namespace, given: set[str], mode: str) -> None:
    """Raise `UserError` for an argument that has no effect on what a call evaluates."""
    if arguments.export is None and given & EXPORT:
        raise UserError(f"--{min(given & EXPORT)} is for --export: leave it out")
    exports = ["--export"] if arguments.export is not None else []
    exports += ["--teacher --student --export"] if exports and arguments.teacher is not None else []
    probes = ["--probe"] if arguments.probe is not None else []
    for one in [mode, *exports, *probes]:
        for name in sorted(given & UNUSED[one]):
            why = ", which has its own config" if one == "RUN_DIR" else ""
            why = ", which is read from its runs' recordings alone" if one == "STUDY_DIR" else why
            raise UserError(f"--{name.replace('_', '-')} is not read together with {one}{why}: leave it out")
    keys = [word.partition("=")[0].strip() for word in arguments.set]
    if mode == "no RUN_DIR" and set(keys) - {"name"}:
        key = next(key for key in keys if key != "name")
        raise UserError(f"--set {key}: a run has its own config, only name=... is read here: leave it out")


def check_labels(arguments: argparse.Namespace, methods: Iterable[str]) -> dict[str, str]:
    """Return labels by method.

    Raises:
        UserError: one of a method that is not there.
    """
    known, labels = set(methods), dict(arguments.labels)
    for method in labels.keys() - known:
        raise UserError(f"--labels {method}: no model is called so, there are {', '.join(sorted(known))}")
    return labels


def evaluate_counts(counts: list[int], as_json: bool) -> None:
    with exit_on_signal():
        from diagnostics.report.terminal import format_counts
        from diagnostics.statistics import Counts, compute_paired_statistics

    try:
        statistics = compute_paired_statistics(Counts(*counts))
    except ValueError as error:
        raise UserError(f"--counts: {error}") from None
    print(json.dumps(to_plain(statistics), indent=2) if as_json else format_counts(statistics))


def evaluate_predictions(path: Path, arguments: argparse.Namespace) -> None:
    """Report what was recorded before."""
    from diagnostics.evaluation import recording_file
    from diagnostics.writable import check_report_folder

    if path.exists() and not path.is_file():
        raise UserError(f"{path} is no file: name a recording (predictions.npz) or a run's folder")
    check_report_folder(path.parent)
    try:
        found = recording_file.read_recording(path)
    except ValueError as error:
        raise UserError(str(error)) from None
    report_on(found, path.parent, arguments)


def evaluate_files(arguments: argparse.Namespace) -> None:
    """Report on two files of weights, in a folder with the names of their hashes, or export the student's."""
    from diagnostics.evaluation.evaluated_models import load_file_models
    from diagnostics.export.card import summarise_export
    from diagnostics.export.pack import export_model, refuse_export
    from models.machine import choose_device, open_machine
    from training.experiment import open_experiment
    from training.run.run_folder import RunFolder

    device = choose_device(arguments.device)
    if arguments.export is not None:
        refuse_export(arguments.export, arguments.quantize)
    config = load_config(arguments.config, arguments.set)
    machine = open_machine(config.precision, device, arguments.quiet)
    experiment = open_experiment(config, RunFolder(arguments.output_dir / config.name), machine)
    teacher, student = subjects = load_file_models(experiment, arguments.teacher, arguments.student)
    if arguments.export is not None:
        made = export_model(experiment, student, teacher, arguments.export, quantize=arguments.quantize)
        print("\n".join(summarise_export(made)))
    else:
        folder = arguments.output_dir / f"eval-{'-'.join(subject.weights_hash[:8] for subject in subjects)}"
        evaluate_subjects(experiment, subjects, folder, arguments)


def evaluate_subjects(
    experiment: Experiment, subjects: list[EvaluatedModel], folder: Path, arguments: argparse.Namespace
) -> None:
    """Report on networks, or with `--quick` print their accuracies and the tests between them."""
    from diagnostics.evaluation.evaluated_models import record
    from diagnostics.evaluation.quick import evaluate_quickly
    from diagnostics.report.terminal import summarise_quickly
    from diagnostics.writable import check_report_folder

    labels = check_labels(arguments, (subject.method for subject in subjects))
    if not arguments.quick:
        check_report_folder(folder)
    if arguments.probe is not None:
        probe_subjects(experiment, subjects, folder, arguments)
        return
    if not arguments.quick:
        report_on(record(experiment, subjects, folder), folder, arguments)
        return
    found = evaluate_quickly(experiment, subjects)
    with use_labels(labels):
        print(json.dumps(to_plain(found)) if arguments.json else summarise_quickly(found, found.images))


def probe_subjects(
    experiment: Experiment, subjects: list[EvaluatedModel], folder: Path, arguments: argparse.Namespace
) -> None:
    """Train linear classifiers on features of other images, and report them beside all else."""
    from dataset.probe_set import load_probe_set
    from diagnostics.evaluation.evaluated_models import record
    from diagnostics.evaluation.probing import probe_models, write_probe
    from diagnostics.report.folder import write_report
    from diagnostics.report.terminal import summarise_probe
    from diagnostics.tables.probes import make_probe_pairs_table
    from diagnostics.tables.table import to_text

    images = load_probe_set(arguments.probe, experiment.data)
    probe, answers = probe_models(subjects, images, experiment.machine)
    place = write_probe(probe, answers, images, folder)
    with use_labels(dict(arguments.labels)):
        if arguments.json:
            print(json.dumps(to_plain(probe)))
        else:  # before the report, which may take minutes
            pairs = to_text(make_probe_pairs_table([probe])) + "\n" if arguments.verbose else ""
            print(pairs + summarise_probe(probe), flush=True)
        write_report(record(experiment, subjects, folder), folder)
    if not arguments.json:
        print(f"files: {place}/, {folder}/report.html")


def report_on(found: Recording, folder: Path, arguments: argparse.Namespace) -> None:
    """Write the report of a recording and print its summary, with `--verbose` its tables too."""
    from diagnostics.report.folder import write_report
    from diagnostics.report.terminal import summarise
    from diagnostics.tables.catalogue import show_tables

    with use_labels(check_labels(arguments, (model.meta.method for model in found.models))):
        report = write_report(found, folder)
        if arguments.json:
            print(json.dumps(to_plain(report)))
            return
        if arguments.verbose:
            print(show_tables(report))
        print(summarise(report, last=f"report: {folder}/report.html"))


def evaluate_study(folder: Path, as_json: bool) -> None:
    """Report what was recorded of a study."""
    from diagnostics.writable import check_folder
    from study.answer import format_study
    from study.measurements import load_measurements
    from study.report import write_study

    measured, context = load_measurements(folder)
    if not measured:
        raise UserError(f"{folder} holds no recorded run yet: run python main.py --phase study")
    check_folder(folder / "eval")
    report = write_study(measured, context, folder / "eval")
    if as_json:
        print(json.dumps(to_plain(report)))
        return
    print(format_study(report))
    print(f"files: {folder}/eval/report.html, report.json, tables/, figures/")


def export_model(experiment: Experiment, arguments: argparse.Namespace) -> None:
    """Write one model of a run for deployment; without `--model` the best student on validation images."""
    from diagnostics.evaluation.evaluated_models import find_model, find_teacher
    from diagnostics.export.card import summarise_export
    from diagnostics.export.choice import choose_student
    from diagnostics.export.pack import export_model

    method, seed = arguments.model, arguments.seed
    if method is None:
        choice = choose_student(experiment, seed)
        method, seed = choice.method, choice.seed
        print(choice.sentence)
    subject = find_model(experiment, method, seed)
    teacher = None if subject.method == "teacher" else find_teacher(experiment)
    made = export_model(experiment, subject, teacher, arguments.export, quantize=arguments.quantize)
    print("\n".join(summarise_export(made)))


def evaluate_runs(paths: list[Path], open_at: Callable[[Path], Experiment], arguments: argparse.Namespace) -> None:
    """Compare several runs on one page, from their own reports; evaluate first where one does not hold."""
    from diagnostics.report.comparison import name_folder, read_or_evaluate, refuse_twice, write_comparison
    from diagnostics.report.terminal import format_runs
    from diagnostics.writable import check_folder

    refuse_twice(paths)
    beside = paths[0].resolve().parent if arguments.output_dir == DEFAULT_OUTPUT else arguments.output_dir
    check_folder(beside, ", or name another --output-dir")
    runs = [read_or_evaluate(path, open_at, arguments.quiet) for path in paths]
    folder = beside / name_folder(runs)
    with use_labels(check_labels(arguments, (model.method for run in runs for model in run.report.models))):
        try:
            compared = write_comparison(runs, folder)
        except ValueError as error:
            raise UserError(f"--compare: {error}") from None
        print(json.dumps(to_plain(compared)) if arguments.json else format_runs(compared, folder))


def evaluate_models(arguments: argparse.Namespace) -> None:
    """Run the modes that need networks of runs."""
    from diagnostics.evaluation.evaluated_models import list_run_models, open_run
    from diagnostics.export.pack import refuse_export
    from models.machine import choose_device, open_machine
    from study.measurements import is_study
    from training.run.run_folder import RunFolder

    device = choose_device(arguments.device)

    def open_at(path: Path) -> Experiment:
        folder = RunFolder(path)
        if is_study(path):
            raise UserError(f"{path} is a study: name one of the runs in it")
        return open_run(folder, open_machine(folder.read_config().precision, device, arguments.quiet))

    if arguments.compare is not None:
        evaluate_runs(arguments.compare, open_at, arguments)
        return
    if arguments.export is not None:
        refuse_export(arguments.export, arguments.quantize)  # before anything is loaded
        export_model(open_at(find_folder(arguments)), arguments)
        return
    experiment = open_at(find_folder(arguments))
    evaluate_subjects(experiment, list_run_models(experiment), experiment.folder.path / "eval", arguments)


def find_folder(arguments: argparse.Namespace) -> Path:
    """Return the run or study that is named, or that of the config in --output-dir."""
    if arguments.run is not None:
        return Path(arguments.run)
    return Path(arguments.output_dir / load_config(arguments.config, arguments.set).name)


def run() -> None:
    arguments, given = make_parser().read()
    mode = command_mode(arguments)
    reject_unused_args(arguments, given, mode)
    reset_permission(arguments.allow_code)
    if "config" not in UNUSED[mode]:
        allow_code(load_config(arguments.config, arguments.set))  # an error in it is reported before the imports
    if mode == "--counts":
        evaluate_counts(arguments.counts, arguments.json)
        return
    with exit_on_signal():  # all that takes seconds, before anything is begun
        from study.measurements import is_study

        study = mode in ("RUN_DIR", "no RUN_DIR") and arguments.export is None and is_study(find_folder(arguments))
        for name in HEAVY["study" if study else "run"]:
            import_module(name)
    if mode == "predictions.npz":
        evaluate_predictions(arguments.run, arguments)
    elif arguments.teacher is not None:
        evaluate_files(arguments)
    elif study:
        reject_unused_args(arguments, given, "STUDY_DIR")
        evaluate_study(find_folder(arguments), arguments.json)
    else:
        evaluate_models(arguments)


if __name__ == "__main__":
    sys.exit(run_command(run, "run again"))
