"""From recordings to the folder that a reader opens: report.html, report.json, tables and figures.

The same recordings give the same report.json and report.html, byte for byte.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from numpy.typing import NDArray

from diagnostics.analysis import analyse, embeddings
from diagnostics.figure_style import DPI, is_first, to_bytes
from diagnostics.figures import FIGURES, draw_all
from diagnostics.figures_features import coloured_classes
from diagnostics.figures_predictions import MOST_CLASSES, focus
from diagnostics.recording import Recordings
from diagnostics.table_format import NO_TEACHER, Table, letter, to_csv, to_tex
from diagnostics.tables import all_tables
from diagnostics.verdict import verdict
from files import write_atomically, write_text

LEAST_MAPPED = 10  # images below which a map of them would show nothing
MOST_PAIRS = 10  # rows of a pair table before it is cut to the pairs of the student in question


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


def page(
    report: Mapping[str, Any],
    tables: Mapping[str, Table],
    pictures: Mapping[str, bytes],
    missing: Mapping[str, str],
) -> str:
    """The report as one HTML page that needs nothing but itself."""
    students = [model["name"] for model in report["models"] if model["method"] != "teacher"]
    main = focus(students) if students else None
    context = report["context"]
    return template("report.html.j2").render(
        report=report,
        context=context,
        verdict=verdict(report),
        main=main,
        tables=tables,
        leads={name: lead(table, main) for name, table in tables.items()},
        pictures={name: embedded(picture) for name, picture in pictures.items()},
        missing=missing,
        several=any(method["n"] > 1 for method in report["seeds"]["methods"].values()),
        lost=(report.get("fidelity", {}).get(main) or {}).get("lost_most", []),
        some_classes=len(context["classes"]) > MOST_CLASSES,
        coloured=len(coloured_classes(len(context["classes"]))),
        config=yaml.safe_dump(context["config"], sort_keys=False, allow_unicode=True),
        facts=facts(context),
        letter=letter,
    )


def template(name: str) -> Template:
    """A page's template, in which a name that is not given is an error."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def embedded(picture: bytes) -> dict[str, Any]:
    """A PNG as text, with its size in CSS pixels, so that the page does not jump while it loads."""
    width, height = struct.unpack(">II", picture[16:24])
    data = base64.b64encode(picture).decode()
    return {"data": data, "width": width * 96 // DPI, "height": height * 96 // DPI}


def lead(table: Table, main: str | None) -> Table:
    """The rows to show at once: the first seed's, and of many pairs those of the student in question."""
    names = 2 if [column.key for column in table.columns[:2]] == ["a", "b"] else 1
    shown = table.only(lambda row: all(is_first(str(cell.value)) for cell in row[:names]))
    remarks = ["the first seed"] if len(shown.rows) < len(table.rows) else []
    if names == 2 and len(shown.rows) > MOST_PAIRS and main is not None:
        shown = shown.only(lambda row: main in (row[0].value, row[1].value))
        remarks.append(f"pairs with {main}")
    return replace(shown, caption=f"{table.caption} Here: {', '.join(remarks)}.") if remarks else shown


def facts(context: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Versions and hardware as lines of text: where the models were trained, and where they were evaluated."""
    places = {"Evaluated on": context["evaluated_on"], "Trained on": context["trained_on"]}
    return {place: {key: _line(value) for key, value in known.items()} for place, known in places.items() if known}


def _line(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_line(part)}" for key, part in value.items())
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return "unknown" if value is None else str(value)


def absent(report: Mapping[str, Any], mapped: int) -> dict[str, str]:
    """Why a figure is not there, for each that can be missing."""
    teacher = any(model["method"] == "teacher" for model in report["models"])
    student = "There is no student among these models." if teacher else NO_TEACHER
    too_few = f"Fewer than {LEAST_MAPPED} images: no map."
    return {
        "accuracy": "No model classifies.",
        "contingency": student,
        "class_change": student,
        "layers": student if not report.get("representation") else "No layer was recorded.",
        "tsne": too_few
        if mapped < LEAST_MAPPED
        else "Neither teacher, stage 1 nor two-stage is among the models.",
        "reliability": "No model classifies.",
        "corruptions": "No model was tested on corrupted images.",
        "cost": "The cost of no model was measured.",
        "stage1": "No stage 1 of these models is on record.",
        "stage2": "No stage 2 of these models is on record.",
        "training": "No training of these students is on record.",
    }
