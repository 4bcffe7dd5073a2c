"""From a recording to the folder that a reader opens: report.html, report.json, predictions.csv,
tables and figures.

The same recording, with the same probes beside it, gives the same report.json and report.html, byte for byte.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from diagnostics.evaluation.analysis import compute_report, map_features
from diagnostics.evaluation.probing import read_probes
from diagnostics.evaluation.recording import Recording
from diagnostics.evaluation.results import Report
from diagnostics.evaluation.saved_evaluation import DIGEST
from diagnostics.figures.catalogue import FIGURES, draw_all
from diagnostics.report.files import make_folder, write_figures, write_json, write_tables
from diagnostics.report.page import render_page
from diagnostics.report.sheet import make_thumbnails
from diagnostics.tables.catalogue import make_tables
from diagnostics.tables.predictions import make_predictions_table
from diagnostics.tables.table import to_csv
from files import write_text
from models.whole import hash_file

LEAST_MAPPED = 10  # images below which a map of them would show nothing


def write_report(recording: Recording, folder: Path) -> Report:
    """Analyse a recording and write all of the report to `folder`."""
    hashes = {model.name: model.meta.weights_hash for model in recording.models}
    report = replace(compute_report(recording), probes=read_probes(folder, hashes) or None)
    maps = map_features(recording, report.main) if len(recording.layer_indices) >= LEAST_MAPPED else {}
    tables = make_tables(report)
    write_json(report, make_folder(folder) / "report.json")
    write_text(folder / DIGEST, hash_file(folder / "report.json") + "\n")
    write_tables(tables, make_folder(folder / "tables"))
    figures = draw_all(report, recording, maps)
    pictures = write_figures(figures, make_folder(folder / "figures"), lambda name: name in FIGURES)
    write_text(folder / "predictions.csv", to_csv(make_predictions_table(recording)))
    write_text(folder / "report.html", render_page(report, tables, pictures, make_thumbnails(recording)))
    return report
