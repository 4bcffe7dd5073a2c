"""From the records of a study to the folder that a reader opens: report.html, report.json, tables and figures.

The same records give the same report.json and report.html, byte for byte.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from matplotlib.figure import Figure

from diagnostics.report.files import make, write_figures, write_json, write_tables
from diagnostics.report.parts import embedded, facts, files, template
from diagnostics.report.sheet import thumbnail
from diagnostics.tables.table import Table, letter
from files import write_text
from settings.study import NAME
from study import figures as study_figures
from study import tables as study_tables
from study import words as study_words
from study.answer import answer
from study.figures import Examples
from study.fitness import TEACHER
from study.frontier import Mark, frontier, marks
from study.frontier import words as frontier_words
from study.grid import Point, describe_point, drop_key
from study.measurements import Measurement, RecordedRun, StudyContext
from study.reported import STUDY_VERSION, StudyReport
from study.results import (
    STUDENT_ARM,
    TEACHER_ARM,
    InheritanceRow,
    Results,
    SummaryRow,
    conclude,
)
from training.run.environment import read_environment

FIGURES = ("frontier", "following", "inheritance", "accuracy", "examples")  # how names of figures begin
NO_EXAMPLES = "Example images were not asked for."


def write_study(
    records: Sequence[Measurement], context: StudyContext, folder: Path, examples: Examples | str = NO_EXAMPLES
) -> StudyReport:
    """Write all of a study's report to `folder`.

    examples: images on which a cue is followed, or why there are none.

    Raises ValueError where there is no record, or there are two of one point, method and seed.
    """
    report = assemble(records, context)
    tables = study_tables.all_tables(report)
    write_tables(dict(_files(tables, report)), make(folder / "tables"))
    figures = draw(report, None if isinstance(examples, str) else examples)
    pictures = write_figures(figures, make(folder / "figures"), lambda name: name.split("-")[0] in FIGURES)
    write_json(report, folder / "report.json")
    write_text(folder / "report.html", page(report, tables, pictures, examples))
    return report


def assemble(records: Sequence[Measurement], context: StudyContext) -> StudyReport:
    """Return all numbers of a study and what is missing, the points of the hypotheses and the teachers first."""
    if not records:
        raise ValueError("a report of a study needs at least one measurement")
    ordered = sorted(records, key=lambda record: record.method != TEACHER)
    results = conclude(ordered, context.hypotheses, context.tries)
    order = {label: number for number, label in enumerate(_points(results))}
    summary = sorted(results.summary, key=lambda row: order[row.label])
    return StudyReport(
        schema_version=STUDY_VERSION,
        study=context.name,
        config=context.config,
        stated=context.hypotheses,
        recorded=[place.run.name for place in context.recorded],
        environments=_environments(context.recorded),
        planted=any(record.measures for record in records),
        seeds=sorted({record.seed for record in records}),
        points=list(order),
        methods=list(dict.fromkeys(record.method for record in ordered)),
        summary=summary,
        hypotheses=results.hypotheses,
        rest=results.rest,
        inheritance=results.inheritance,
        checks=results.checks,
        selection=results.selection,
        notes=results.notes,
        missing=[*_unrecorded(context), *_gaps(summary)],
        twins=context.twins,
        end_to_end=sorted(context.end_to_end),
    )


def _points(results: Results) -> list[str]:
    """Return labels of the points, first the one that answers: of a hypothesis, else the biased one."""
    labels = list(dict.fromkeys(row.label for row in results.summary))
    stated = [row.label for row in results.hypotheses]
    biased = [row.label for row in results.summary if _arms(row.point) == {"biased"}]
    return list(dict.fromkeys([*stated, *biased[:1], *labels]))


def _arms(point: Point) -> set[str]:
    return {point[key] for key in (TEACHER_ARM, STUDENT_ARM) if key in point}


def _unrecorded(context: StudyContext) -> list[str]:
    """Return the runs that were not recorded, in words."""
    recorded = [(place.point, place.seed) for place in context.recorded]
    labels = context.labels or [describe_point(point) for point in context.points]
    return [
        f"{label}: seed {seed} was not recorded"
        for point, label in zip(context.points, labels, strict=True)
        for seed in context.seeds
        if (point, seed) not in recorded
    ]


def _environments(recorded: Sequence[RecordedRun]) -> list[dict[str, Any]]:
    """Return the different versions and machines that the runs were trained with."""
    read = [read_environment(place.run) for place in recorded]
    found = [known for known in read if known is not None]
    for known in found:
        known.pop("command", None)
    return [known for number, known in enumerate(found) if known not in found[:number]]


def _gaps(summary: Sequence[SummaryRow]) -> list[str]:
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


@dataclass(frozen=True)
class Place:
    """Points that differ in the teacher's arm alone: rows of the summary by that arm, and of the inheritance."""

    label: str
    number: int
    arms: Mapping[str, Sequence[SummaryRow]]
    inheritance: Sequence[InheritanceRow]

    def name(self, kind: str) -> str:
        """Return a name of a figure, fit for a file."""
        return f"{kind}-{self.number}-{re.sub(r'[^A-Za-z0-9_.]+', '-', self.label).strip('-')}"


def places(report: StudyReport) -> list[Place]:
    """Return the places in the order of the points."""
    groups: dict[str, dict[str, list[SummaryRow]]] = {}
    labels: dict[str, list[str]] = {}
    for row in report.summary:
        place = _without_arm(row.point)
        groups.setdefault(place, {}).setdefault(row.point.get(TEACHER_ARM, ""), []).append(row)
        labels.setdefault(place, []).append(drop_key(row.label, TEACHER_ARM))
    return [
        Place(
            " and ".join(dict.fromkeys(labels[place])),
            number,
            {arm: arms[arm] for arm in ("biased", "unbiased", "") if arm in arms},
            [row for row in report.inheritance if _without_arm(row.point) == place],
        )
        for number, (place, arms) in enumerate(groups.items(), start=1)
    ]


def _without_arm(point: Point) -> str:
    """Return what stands for a point's values but the teacher's arm, and not for the names that arms may have."""
    rest = {key: value for key, value in point.items() if key not in (NAME, TEACHER_ARM)}
    return json.dumps(rest, sort_keys=True)


def _marks(report: StudyReport, place: Place) -> dict[str, list[Mark]]:
    return {arm: marks(rows, report.end_to_end) for arm, rows in place.arms.items()}


def draw(report: StudyReport, examples: Examples | None) -> dict[str, Figure]:
    """Draw figures by name; one whose numbers are not there is left out."""
    stated = [name for row in report.hypotheses for name in (row.first, row.second)]
    drawn: dict[str, Figure | None] = {}
    for place in places(report):
        if report.planted:
            drawn[place.name("frontier")] = frontier(_marks(report, place), report.twins)
            drawn[place.name("following")] = study_figures.dots(place.arms, ("following", "unbiased"))
            drawn[place.name("inheritance")] = study_figures.inheritance(place.inheritance, stated)
        else:
            drawn[place.name("accuracy")] = study_figures.dots(place.arms, ("top1",))
    if examples is not None:
        drawn["examples"] = study_figures.examples(examples)
    return {name: figure for name, figure in drawn.items() if figure is not None}


def _files(tables: Mapping[str, Table], report: StudyReport) -> Iterator[tuple[str, Table]]:
    """Yield tables as files: of all points, and where there are several the first one's apart, fit for a paper."""
    names, first = study_tables.keys(report), report.summary[0]
    for name, table in tables.items():
        yield name, table
        if len(report.points) > 1 and name in ("measures", "fidelity", "comparisons"):
            yield f"{name}_first", replace(study_tables.at(table, first, names), name=f"{name}_first")


def page(
    report: StudyReport, tables: Mapping[str, Table], pictures: Mapping[str, bytes], examples: Examples | str
) -> str:
    """Return the report as one HTML page that needs nothing but itself."""
    points = list({row.label: row for row in reversed(report.summary)}.values())
    shown = places(report)
    return template(Path(__file__).with_name("study.html.j2")).render(
        report=report,
        config=report.config,
        answer=answer(report),
        results=study_tables.RESULTS,
        points=sorted(points, key=lambda row: report.points.index(row.label)),
        places=shown,
        words=_words(report, shown),
        at=lambda name, row: study_tables.at(tables[name], row, study_tables.keys(report)),
        tables=tables,
        pictures={name: embedded(picture) for name, picture in pictures.items()},
        missing=_absent(report, shown, examples),
        examples=None if isinstance(examples, str) else examples,
        thumbnails=[] if isinstance(examples, str) else [thumbnail(pixels) for pixels in examples.pixels],
        files=files(dict(_files(tables, report)), pictures, others=()),
        yaml=yaml.safe_dump(report.config, sort_keys=False, allow_unicode=True),
        facts=[facts(None, known) for known in report.environments],
        letter=letter,
    )


def _words(report: StudyReport, shown: Sequence[Place]) -> dict[str, str]:
    """Return what each figure shows, by its name."""
    found = {}
    for place in shown:
        found[place.name("frontier")] = frontier_words(_marks(report, place))
        found[place.name("following")] = study_words.dots(place.arms, ("following", "unbiased"))
        found[place.name("inheritance")] = study_words.inheritance(place.inheritance)
        found[place.name("accuracy")] = study_words.dots(place.arms, ("top1",))
    return found


def _absent(report: StudyReport, shown: Sequence[Place], examples: Examples | str) -> dict[str, str]:
    """Return why a figure is not there, for each that can be missing."""
    nothing = "No conflicting image on which both follow the cue."
    reasons = {place.name("inheritance"): report.notes.get("inheritance", "") for place in shown}
    reasons = {name: reason or "Not recorded in both arms of the teacher." for name, reason in reasons.items()}
    unmarked = dict.fromkeys((place.name("frontier") for place in shown), "No method has both numbers.")
    return {**reasons, **unmarked, "examples": examples if isinstance(examples, str) else nothing}
