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
from pathlib import Path

from diagnostics.plain import to_plain
from settings.command_line import CommandLine, read_folder, read_path
from settings.own_code import allow_code, reset_permission
from settings.reading import DEFAULT_CONFIG, load_config
from training.run.run_folder import RunFolder

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


def find_mode(arguments: argparse.Namespace) -> str:
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


def evaluate_counts(counts: list[int], as_json: bool) -> None:
    with exit_on_signal():
        from diagnostics.report.terminal import format_counts
        from diagnostics.statistics import Counts, compute_paired_statistics

    try:
        statistics = compute_paired_statistics(Counts(*counts))
    except ValueError as error:
        raise UserError(f"--counts: {error}") from None
    print(json.dumps(to_plain(statistics), indent=2) if as_json else format_counts(statistics))


def find_folder(arguments: argparse.Namespace) -> Path:
    """Return the run or study that is named, or that of the config in --output-dir."""
    if arguments.run is not None:
        return Path(arguments.run)
    return Path(arguments.output_dir / load_config(arguments.config, arguments.set).name)


def run() -> None:
    arguments, given = make_parser().read()
    mode = find_mode(arguments)
    reject_unused_args(arguments, given, mode)
    reset_permission(arguments.allow_code)
    if "config" not in UNUSED[mode]:
        allow_code(load_config(arguments.config, arguments.set))  # an error in it is reported before the imports
    if mode == "--counts":
        evaluate_counts(arguments.counts, arguments.json)
        return
    if mode in ("RUN_DIR", "no RUN_DIR") and arguments.export is None:
        folder = find_folder(arguments)
        if RunFolder(folder).is_study():
            reject_unused_args(arguments, given, "STUDY_DIR")
            with exit_on_signal():
                from study.report import evaluate_study
            evaluate_study(folder, arguments.json)
            return
    with exit_on_signal():  # all that takes seconds, before anything is begun
        from diagnostics import commands
    if mode == "predictions.npz":
        commands.evaluate_recording(arguments.run, arguments)
    elif mode == "--teacher and --student":
        commands.evaluate_files(arguments)
    elif mode == "--compare":
        paths, output = arguments.compare, arguments.output_dir
        commands.compare_folders(
            paths, paths[0].resolve().parent if output == DEFAULT_OUTPUT else output, arguments
        )
    else:
        commands.evaluate_run(find_folder(arguments), arguments)


if __name__ == "__main__":
    sys.exit(run_command(run, "run again"))
