"""What `main_eval.py` does with models: report, probe, compare runs, export. Slow to import, so imported late."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

from dataset.probe_set import load_probe_set
from diagnostics.evaluation import recording_file
from diagnostics.evaluation.evaluated_models import (
    find_model,
    find_teacher,
    list_run_models,
    load_file_models,
    open_run,
    record,
)
from diagnostics.evaluation.probing import probe_models, write_probe
from diagnostics.evaluation.quick import evaluate_quickly
from diagnostics.evaluation.recording import EvaluatedModel, Recording
from diagnostics.export.card import summarise_export
from diagnostics.export.choice import choose_student
from diagnostics.export.pack import export_model, refuse_export
from diagnostics.names import use_labels
from diagnostics.plain import to_plain
from diagnostics.report.comparison import name_folder, read_or_evaluate, refuse_twice, write_comparison
from diagnostics.report.folder import write_report
from diagnostics.report.terminal import format_runs, summarise, summarise_probe, summarise_quickly
from diagnostics.tables.catalogue import show_tables
from diagnostics.tables.probes import make_probe_pairs_table
from diagnostics.tables.table import to_text
from diagnostics.writable import check_folder, check_report_folder
from errors import UserError
from models.machine import choose_device, open_machine
from settings.reading import load_config
from training.experiment import Experiment, open_experiment
from training.run.run_folder import RunFolder


def evaluate_run(path: Path, arguments: Namespace) -> None:
    """Report on the models of a run, or export one of them."""
    if arguments.export is not None:
        refuse_export(arguments.export, arguments.quantize)  # before anything is loaded
        export_student(_open_run(path, arguments), arguments)
        return
    experiment = _open_run(path, arguments)
    evaluate_models(experiment, list_run_models(experiment), path / "eval", arguments)


def _open_run(path: Path, arguments: Namespace) -> Experiment:
    device, folder = choose_device(arguments.device), RunFolder(path)
    if folder.is_study():
        raise UserError(f"{path} is a study: name one of the runs in it")
    return open_run(folder, open_machine(folder.read_config().precision, device, arguments.quiet))


def evaluate_files(arguments: Namespace) -> None:
    """Report on two files of weights, in a folder with the names of their hashes, or export the student's."""
    device = choose_device(arguments.device)
    if arguments.export is not None:
        refuse_export(arguments.export, arguments.quantize)
    config = load_config(arguments.config, arguments.set)
    machine = open_machine(config.precision, device, arguments.quiet)
    experiment = open_experiment(config, RunFolder(arguments.output_dir / config.name), machine)
    teacher, student = models = load_file_models(experiment, arguments.teacher, arguments.student)
    if arguments.export is not None:
        made = export_model(experiment, student, teacher, arguments.export, quantize=arguments.quantize)
        print("\n".join(summarise_export(made)))
    else:
        folder = arguments.output_dir / f"eval-{'-'.join(model.weights_hash[:8] for model in models)}"
        evaluate_models(experiment, models, folder, arguments)


def evaluate_recording(path: Path, arguments: Namespace) -> None:
    """Report on what was recorded before."""
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is no file: name a recording (predictions.npz) or a run's folder")
    check_report_folder(path.parent)
    try:
        found = recording_file.read_recording(path)
    except ValueError as error:
        raise UserError(str(error)) from None
    report_on(found, path.parent, arguments)


def evaluate_models(
    experiment: Experiment, models: list[EvaluatedModel], folder: Path, arguments: Namespace
) -> None:
    """Report on networks, or with `--quick` print their accuracies and the tests between them."""
    labels = check_labels(arguments, (model.method for model in models))
    if arguments.quick:
        found = evaluate_quickly(experiment, models)
        with use_labels(labels):
            print(json.dumps(to_plain(found)) if arguments.json else summarise_quickly(found, found.images))
        return
    check_report_folder(folder)
    if arguments.probe is not None:
        report_probe(experiment, models, folder, arguments)
    else:
        report_on(record(experiment, models, folder), folder, arguments)


def report_probe(experiment: Experiment, models: list[EvaluatedModel], folder: Path, arguments: Namespace) -> None:
    """Train linear classifiers on features of other images, and report them beside all else."""
    images = load_probe_set(arguments.probe, experiment.data)
    found, answers = probe_models(models, images, experiment.machine)
    place = write_probe(found, answers, images, folder)
    with use_labels(dict(arguments.labels)):
        if arguments.json:
            print(json.dumps(to_plain(found)))
        else:  # before the report, which may take minutes
            pairs = to_text(make_probe_pairs_table([found])) + "\n" if arguments.verbose else ""
            print(pairs + summarise_probe(found), flush=True)
        write_report(record(experiment, models, folder), folder)
    if not arguments.json:
        print(f"files: {place}/, {folder}/report.html")


def report_on(found: Recording, folder: Path, arguments: Namespace) -> None:
    """Write the report of a recording and print its summary, with `--verbose` its tables too."""
    with use_labels(check_labels(arguments, (model.meta.method for model in found.models))):
        report = write_report(found, folder)
        if arguments.json:
            print(json.dumps(to_plain(report)))
            return
        if arguments.verbose:
            print(show_tables(report))
        print(summarise(report, last=f"report: {folder}/report.html"))


def export_student(experiment: Experiment, arguments: Namespace) -> None:
    """Write one model of a run for deployment; without `--model` the best student on validation images."""
    method, seed = arguments.model, arguments.seed
    if method is None:
        choice = choose_student(experiment, seed)
        method, seed = choice.method, choice.seed
        print(choice.sentence)
    model = find_model(experiment, method, seed)
    teacher = None if model.method == "teacher" else find_teacher(experiment)
    made = export_model(experiment, model, teacher, arguments.export, quantize=arguments.quantize)
    print("\n".join(summarise_export(made)))


def compare_folders(paths: list[Path], beside: Path, arguments: Namespace) -> None:
    """Compare several runs on one page, from their own reports; evaluate first where one does not hold.

    beside: the folder that the comparison's folder is made in.
    """
    refuse_twice(paths)
    check_folder(beside, ", or name another --output-dir")
    runs = [read_or_evaluate(path, lambda path: _open_run(path, arguments), arguments.quiet) for path in paths]
    folder = beside / name_folder(runs)
    with use_labels(check_labels(arguments, (model.method for run in runs for model in run.report.models))):
        try:
            compared = write_comparison(runs, folder)
        except ValueError as error:
            raise UserError(f"--compare: {error}") from None
        print(json.dumps(to_plain(compared)) if arguments.json else format_runs(compared, folder))


def check_labels(arguments: Namespace, methods: Iterable[str]) -> dict[str, str]:
    """Return labels by method.

    Raises:
        UserError: one of a method that is not there.
    """
    known, labels = set(methods), dict(arguments.labels)
    for method in labels.keys() - known:
        raise UserError(f"--labels {method}: no model is called so, there are {', '.join(sorted(known))}")
    return labels
