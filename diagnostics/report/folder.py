"""From a recording to the folder that a reader opens: report.html, report.json, predictions.csv,
tables and figures.

The same recording gives the same report.json and report.html, byte for byte.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO

from matplotlib.figure import Figure

from diagnostics.analysis import analyse, embeddings
from diagnostics.figures.catalogue import FIGURES, draw_all
from diagnostics.figures.style import to_bytes
from diagnostics.plain import to_plain
from diagnostics.recording import Recording
from diagnostics.report.page import LEAST_MAPPED, absent, page
from diagnostics.report.sheet import thumbnails
from diagnostics.results import Report
from diagnostics.tables.catalogue import all_tables
from diagnostics.tables.looks import predictions
from diagnostics.tables.table import Table, to_csv, to_tex
from files import write_atomically, write_text


def write_report(recording: Recording, folder: Path) -> Report:
    """Analyse a recording and write all of the report to `folder`."""
    report, mapped = analyse(recording), len(recording.layer_indices)
    maps = embeddings(recording) if mapped >= LEAST_MAPPED else {}
    tables = all_tables(report)
    write_json(report, make(folder) / "report.json")
    write_tables(tables, make(folder / "tables"))
    figures = draw_all(report, recording, maps)
    pictures = write_figures(figures, make(folder / "figures"), lambda name: name in FIGURES)
    write_text(folder / "predictions.csv", to_csv(predictions(recording)))
    shown = thumbnails(recording)
    write_text(folder / "report.html", page(report, tables, pictures, absent(report, mapped), shown))
    return report


def make(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_json(report: object, path: Path) -> None:
    """A report of dataclasses as JSON, which holds no NaN."""
    write_text(path, json.dumps(to_plain(report), indent=1, allow_nan=False) + "\n")


def write_tables(tables: Mapping[str, Table], folder: Path) -> None:
    """Write each table as CSV and LaTeX."""
    for name, table in tables.items():
        write_text(folder / f"{name}.csv", to_csv(table))
        write_text(folder / f"{name}.tex", to_tex(table))


def write_figures(figures: Mapping[str, Figure], folder: Path, is_ours: Callable[[str], bool]) -> dict[str, bytes]:
    """Write each figure as PDF and PNG; gives the PNGs.

    is_ours: whether a name is one that this report gives to figures: such a file of an earlier report, which this
        one lacks, is removed.
    """
    pictures = {}
    for name, figure in figures.items():
        for kind in ("pdf", "png"):
            pictures[name] = to_bytes(figure, kind)  # the PNG is the last
            write_atomically(folder / f"{name}.{kind}", partial(_put, pictures[name]))
    for path in [*folder.glob("*.pdf"), *folder.glob("*.png")]:
        if is_ours(path.stem) and path.stem not in figures:
            path.unlink()
    return pictures


def _put(content: bytes, file: BinaryIO) -> None:
    file.write(content)
