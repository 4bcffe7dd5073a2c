"""The report as one HTML page: which tables and figures it shows, and why one is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import yaml

from diagnostics.evaluation.results import Report
from diagnostics.figures.catalogue import FIGURES
from diagnostics.figures.features import choose_coloured
from diagnostics.figures.fonts import is_drawable
from diagnostics.figures.predictions import ENOUGH
from diagnostics.names import is_first, show_name
from diagnostics.report.parts import HERE, embed_picture, list_facts, list_files, load_template
from diagnostics.report.sheet import Thumbnail
from diagnostics.report.verdict import OF_SEEDS, ONE_SEED, write_cautions, write_verdict
from diagnostics.tables.catalogue import has_several_seeds
from diagnostics.tables.probes import describe_probe
from diagnostics.tables.table import Table, to_letter

MOST_PAIRS = 10  # rows of a pair table before it is cut to the pairs of the student in question
MOST_TOLD = 12  # rows of a table that stand in an alternative text


def render_page(
    report: Report,
    tables: Mapping[str, Table],
    pictures: Mapping[str, bytes],
    thumbnails: Mapping[int, Thumbnail],
) -> str:
    """Return the report as one HTML page that needs nothing but itself."""
    main, context = report.main, report.context
    faithful = (report.fidelity or {}).get(main or "")
    leads = {name: cut_rows(table, main) for name, table in tables.items()}
    return load_template(HERE / "report.html.j2").render(
        report=report,
        context=context,
        answer=write_verdict(report),
        caution=write_cautions(report),
        main=main,
        label=show_name,
        tables=tables,
        leads=leads,
        pictures={name: embed_picture(picture) for name, picture in pictures.items()},
        missing={name: drawing.missing for name, drawing in FIGURES.items()},
        words={name: leads[drawing.table].describe(MOST_TOLD) for name, drawing in FIGURES.items()},
        thumbnails=thumbnails,
        probed=[describe_probe(probe) for probe in report.probes or []],
        several=has_several_seeds(report),
        one_seed=f"{ONE_SEED} {OF_SEEDS}",
        enough=ENOUGH,
        files=list_files(tables, pictures),
        numbered=not all(map(is_drawable, context.classes)),
        lost=faithful.lost_most if faithful else [],
        coloured=len(choose_coloured(len(context.classes))),
        config=yaml.safe_dump(context.config, sort_keys=False, allow_unicode=True),
        facts=list_facts(context.evaluated_on, context.trained_on),
        letter=to_letter,
    )


def cut_rows(table: Table, main: str | None) -> Table:
    """Return the rows to show at once: the first seed's, and of many pairs those of the student in question."""
    names = 2 if [column.key for column in table.columns[:2]] == ["a", "b"] else 1
    rows = [row for row in table.rows if all(is_first(str(cell.value)) for cell in row[:names])]
    remarks = ["the first seed"] if len(rows) < len(table.rows) else []
    if names == 2 and len(rows) > MOST_PAIRS and main is not None:
        rows = [row for row in rows if main in (row[0].value, row[1].value)]
        remarks.append(f"pairs with {show_name(main)}")
    return replace(table, rows=rows, caption=f"{table.caption} Here: {', '.join(remarks)}.") if remarks else table
