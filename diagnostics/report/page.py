"""The report as one HTML page: which tables and figures it shows, and why one is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import yaml

from diagnostics.evaluation.results import Report
from diagnostics.figures.features import coloured_classes
from diagnostics.figures.fonts import can_draw
from diagnostics.figures.predictions import ENOUGH, MOST_CLASSES
from diagnostics.figures.words import WORDS
from diagnostics.names import is_first
from diagnostics.report.parts import HERE, embedded, facts, files, template
from diagnostics.report.sheet import Thumbnail
from diagnostics.report.verdict import verdict
from diagnostics.tables.catalogue import ONE_SEED_MORE, several_seeds
from diagnostics.tables.table import NO_TEACHER, Table, letter

LEAST_MAPPED = 10  # images below which a map of them would show nothing
MOST_PAIRS = 10  # rows of a pair table before it is cut to the pairs of the student in question


def page(
    report: Report,
    tables: Mapping[str, Table],
    pictures: Mapping[str, bytes],
    missing: Mapping[str, str],
    thumbnails: Mapping[int, Thumbnail],
) -> str:
    """The report as one HTML page that needs nothing but itself."""
    main, context = report.main, report.context
    faithful = (report.fidelity or {}).get(main or "")
    return template(HERE / "report.html.j2").render(
        report=report,
        context=context,
        verdict=verdict(report),
        main=main,
        tables=tables,
        leads={name: lead(table, main) for name, table in tables.items()},
        pictures={name: embedded(picture) for name, picture in pictures.items()},
        missing=missing,
        words={name: write(report) for name, write in WORDS.items() if name in pictures},
        thumbnails=thumbnails,
        several=several_seeds(report),
        one_seed=ONE_SEED_MORE,
        enough=ENOUGH,
        files=files(tables, pictures),
        numbered=not all(map(can_draw, context.classes)),
        lost=faithful.lost_most if faithful else [],
        some_classes=len(context.classes) > MOST_CLASSES,
        coloured=len(coloured_classes(len(context.classes))),
        config=yaml.safe_dump(context.config, sort_keys=False, allow_unicode=True),
        facts=facts(context.evaluated_on, context.trained_on),
        letter=letter,
    )


def lead(table: Table, main: str | None) -> Table:
    """The rows to show at once: the first seed's, and of many pairs those of the student in question."""
    names = 2 if [column.key for column in table.columns[:2]] == ["a", "b"] else 1
    shown = table.only(lambda row: all(is_first(str(cell.value)) for cell in row[:names]))
    remarks = ["the first seed"] if len(shown.rows) < len(table.rows) else []
    if names == 2 and len(shown.rows) > MOST_PAIRS and main is not None:
        shown = shown.only(lambda row: main in (row[0].value, row[1].value))
        remarks.append(f"pairs with {main}")
    return replace(shown, caption=f"{table.caption} Here: {', '.join(remarks)}.") if remarks else shown


def absent(report: Report, mapped: int) -> dict[str, str]:
    """Why a figure is not there, for each that can be missing."""
    teacher = any(model.method == "teacher" for model in report.models)
    student = "There is no student among these models." if teacher else NO_TEACHER
    too_few = f"Fewer than {LEAST_MAPPED} images: no map."
    return {
        "accuracy": "No model classifies.",
        "contingency": student,
        "class_change": student,
        "layers": student if not report.representation else "No layer was recorded.",
        "tsne": too_few if mapped < LEAST_MAPPED else "Neither a teacher nor a student is among the models.",
        "reliability": "No model classifies.",
        "corruptions": "No model was tested on corrupted images.",
        "cost": "The cost of no model was measured.",
        "stage1": "No stage 1 of these models is on record.",
        "stage2": "No training of a student is on record.",
        "training": "No training of these students is on record.",
    }
