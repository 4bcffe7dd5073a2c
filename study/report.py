"""The report of a study: report.html, report.json, tables and figures.

The same records give the same report.json and report.html, byte for byte.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from diagnostics.plain import to_plain
from diagnostics.report.files import make_folder, write_figures, write_json, write_tables
from diagnostics.report.parts import embed_picture, list_facts, list_files, load_template
from diagnostics.tables.table import Table, to_letter
from diagnostics.writable import check_folder
from errors import UserError
from files import write_text
from study.answer import RESULTS, format_study, list_answers
from study.figures import FIGURES, draw_figures
from study.grid import Point, describe_point
from study.inheritance import TEACHER_ARM
from study.measurements import TEACHER, Measurement, RecordedRun, StudyContext, load_measurements
from study.reported import STUDY_VERSION, StudyReport
from study.results import STUDENT_ARM, Results, SummaryRow, compute_results
from study.tables import TABLES, make_tables
from training.run.environment import read_environment


def evaluate_study(folder: Path, as_json: bool) -> None:
    """Report what was recorded of a study, and print its answers."""
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


def write_study(records: Sequence[Measurement], context: StudyContext, folder: Path) -> StudyReport:
    """Write a study's report to `folder`, and remove stale tables and figures.

    Raises:
        ValueError: no record, or two of one point, method and seed.
    """
    report = make_report(records, context)
    tables = make_tables(report)
    place = make_folder(folder / "tables")
    for path in [*place.glob("*.csv"), *place.glob("*.tex")]:
        if path.stem in TABLES and path.stem not in tables:
            path.unlink()
    write_tables(tables, place)
    pictures = write_figures(draw_figures(report), make_folder(folder / "figures"), FIGURES.__contains__)
    write_json(report, folder / "report.json")
    write_text(folder / "report.html", render_page(report, tables, pictures))
    return report


def make_report(records: Sequence[Measurement], context: StudyContext) -> StudyReport:
    """Return all numbers of a study, hypotheses' points and teachers first."""
    if not records:
        raise ValueError("a report of a study needs at least one measurement")
    ordered = sorted(records, key=lambda record: record.method != TEACHER)
    results = compute_results(ordered, context.hypotheses, context.tries, context.choose_by, context.effects)
    order = {label: number for number, label in enumerate(_order_points(results))}
    summary = sorted(results.summary, key=lambda row: order[row.label])
    return StudyReport(
        schema_version=STUDY_VERSION,
        study=context.name,
        config=context.config,
        stated=context.hypotheses,
        recorded=[place.run.name for place in context.recorded],
        environments=_read_environments(context.recorded),
        planted=any(record.measures for record in records),
        seeds=sorted({record.seed for record in records}),
        points=list(order),
        methods=list(dict.fromkeys(record.method for record in ordered)),
        summary=summary,
        hypotheses=results.hypotheses,
        rest=results.rest,
        effects=results.effects,
        inheritance=results.inheritance,
        checks=results.checks,
        limitations=results.limitations,
        selection=results.selection,
        notes=results.notes,
        missing=[*_list_unrecorded(context), *_list_gaps(summary)],
        twins=context.twins,
        end_to_end=sorted(context.end_to_end),
    )


def _order_points(results: Results) -> list[str]:
    """Return labels of points: those of hypotheses, the biased one, the others."""
    labels = list(dict.fromkeys(row.label for row in results.summary))
    stated = [row.label for row in results.hypotheses]
    biased = [row.label for row in results.summary if _list_arms(row.point) == {"biased"}]
    return list(dict.fromkeys([*stated, *biased[:1], *labels]))


def _list_arms(point: Point) -> set[str]:
    return {point[key] for key in (TEACHER_ARM, STUDENT_ARM) if key in point}


def _list_unrecorded(context: StudyContext) -> list[str]:
    """Return the runs that were not recorded, in words."""
    recorded = [(place.point, place.seed) for place in context.recorded]
    labels = context.labels or [describe_point(point) for point in context.points]
    return [
        f"{label}: seed {seed} was not recorded"
        for point, label in zip(context.points, labels, strict=True)
        for seed in context.seeds
        if (point, seed) not in recorded
    ]


def _read_environments(recorded: Sequence[RecordedRun]) -> list[dict[str, Any]]:
    """Return the different versions and machines that the runs were trained with."""
    read = [read_environment(place.run) for place in recorded]
    found = [known for known in read if known is not None]
    for known in found:
        known.pop("command", None)
    return [known for number, known in enumerate(found) if known not in found[:number]]


def _list_gaps(summary: Sequence[SummaryRow]) -> list[str]:
    """Return models that other seeds of a point have, or other points, in words."""
    methods = list(dict.fromkeys(row.method for row in summary))
    lines = []
    for label in dict.fromkeys(row.label for row in summary):
        here = {row.method: row.seeds for row in summary if row.label == label}
        seeds = sorted(set().union(*here.values()))
        for method in methods:
            lacking = [str(seed) for seed in seeds if seed not in here.get(method, [])]
            if lacking:
                lines.append(f"{label}: no {method} of seed{'s' * (len(lacking) > 1)} {', '.join(lacking)}")
    return lines


def render_page(report: StudyReport, tables: Mapping[str, Table], pictures: Mapping[str, bytes]) -> str:
    """Return the report as one HTML page that needs nothing but itself."""
    numbers = "tables/measures.csv has all numbers."
    return load_template(Path(__file__).with_name("study.html.j2")).render(
        report=report,
        config=report.config,
        answers=list_answers(report),
        results=RESULTS,
        tables=tables,
        leads=tables,
        captions=FIGURES,
        pictures={name: embed_picture(picture) for name, picture in pictures.items()},
        words={name: f"{caption} {numbers}" for name, caption in FIGURES.items()},
        missing={},
        files=list_files(tables, pictures, others=()),
        yaml=yaml.safe_dump(report.config, sort_keys=False, allow_unicode=True),
        facts=[list_facts(None, known) for known in report.environments],
        letter=to_letter,
    )
