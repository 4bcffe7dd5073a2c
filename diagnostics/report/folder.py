"""From recordings to the folder that a reader opens: report.html, report.json, tables and figures.

The same recordings give the same report.json and report.html, byte for byte.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from diagnostics.analysis import analyse, embeddings
from diagnostics.figures.catalogue import FIGURES, draw_all
from diagnostics.figures.style import to_bytes
from diagnostics.recording import Recordings
from diagnostics.report.page import LEAST_MAPPED, absent, page
from diagnostics.tables.catalogue import all_tables
from diagnostics.tables.table import to_csv, to_tex
from files import write_atomically, write_text


def write_report(recordings: Recordings, folder: Path) -> dict[str, Any]:
    """Analyse recordings and write all of the report to `folder`; gives what report.json holds."""
    report = analyse(recordings)
    maps = embeddings(recordings) if len(recordings.layer_indices) >= LEAST_MAPPED else {}
    tables = all_tables(report)
    write_text(make(folder) / "report.json", json.dumps(report, indent=1, allow_nan=False) + "\n")
    for name, table in tables.items():
        write_text(make(folder / "tables") / f"{name}.csv", to_csv(table))
        write_text(folder / "tables" / f"{name}.tex", to_tex(table))
    pictures = write_figures(report, recordings, maps, make(folder / "figures"))
    write_text(
        folder / "report.html", page(report, tables, pictures, absent(report, len(recordings.layer_indices)))
    )
    return report


def make(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_figures(
    report: Mapping[str, Any], recordings: Recordings, maps: Mapping[str, NDArray[Any]], folder: Path
) -> dict[str, bytes]:
    """Write each figure as PNG and PDF, remove those of an earlier report that this one lacks; give the PNGs."""
    pictures = {}
    for name, figure in draw_all(report, recordings, maps).items():
        for kind in ("pdf", "png"):
            content = to_bytes(figure, kind)
            write_atomically(folder / f"{name}.{kind}", lambda file, content=content: file.write(content))
        pictures[name] = content
    for name in FIGURES.keys() - pictures.keys():
        for kind in ("pdf", "png"):
            (folder / f"{name}.{kind}").unlink(missing_ok=True)
    return pictures
