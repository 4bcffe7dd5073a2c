"""Files that every report writes beside its page: report.json, tables, figures."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO

from matplotlib.figure import Figure

from diagnostics.figures.style import to_bytes
from diagnostics.plain import to_plain
from diagnostics.tables.table import Table, to_csv, to_tex
from files import write_atomically, write_text


def make_folder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_json(report: object, path: Path) -> None:
    """Write a report of dataclasses as JSON, which holds no NaN."""
    write_text(path, json.dumps(to_plain(report), indent=1, allow_nan=False) + "\n")


def write_tables(tables: Mapping[str, Table], folder: Path) -> None:
    """Write each table as CSV and LaTeX."""
    for name, table in tables.items():
        write_text(folder / f"{name}.csv", to_csv(table))
        write_text(folder / f"{name}.tex", to_tex(table))


def write_figures(figures: Mapping[str, Figure], folder: Path, is_ours: Callable[[str], bool]) -> dict[str, bytes]:
    """Write each figure as PDF and PNG; return the PNGs.

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
