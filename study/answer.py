"""The answers of a study in words, and its summary for a terminal."""

from __future__ import annotations

from collections import Counter

from diagnostics.tables.table import to_text
from study import tables as study_tables
from study.comparison import Contrast, Difference, format_points
from study.reported import StudyReport

NOT_STATED = "No hypothesis was stated before the run: all comparisons are exploratory."
SEVERAL_TEACHERS = (
    "Differences are paired by teacher and seed. The first interval is over teachers and holds for other "
    "teachers; the second is over student seeds and holds for these teachers alone."
)
MOST_POINTS = 4  # of a table in a terminal
RESULTS = {True: "passed", False: "FAILED", None: "not checked"}


def list_answers(report: StudyReport) -> list[str]:
    """Return a sentence for each hypothesis, and the facts that belong beside it."""
    rows = report.hypotheses
    if not rows:
        return [f"No answer. {report.notes['hypotheses']}" if report.stated else NOT_STATED]
    lines, leads = [], []
    for name in dict.fromkeys(row.name for row in rows):
        tests = [row for row in rows if row.name == name]
        leads.append(min(tests, key=lambda row: report.points.index(row.label)))
        lines.append(f"{leads[-1].sentence}.")
        if len(tests) > 1:
            counts = Counter(one.decision for one in tests).items()
            decisions = ", ".join(f"{decision} at {count}" for decision, count in counts)
            lines[-1] += f" This is at {leads[-1].label}; of its {len(tests)} points: {decisions}."
    if any(row.result.seeds_low is not None for row in leads):
        lines.append(SEVERAL_TEACHERS)
    if report.planted:
        lines += dict.fromkeys(_describe_accuracies(row) for row in leads)
    lines += dict.fromkeys(f"{row.caution}." for row in leads if row.caution)
    failed = [check.name.replace("_", " ") for check in report.checks if check.passed is False]
    if failed:
        lines.append(f"Failed self-checks: {', '.join(failed)}. They block the hypotheses on these models.")
    return [*lines, *report.limitations]


def _describe_accuracies(row: Contrast) -> str:
    """Return the accuracies of the two methods of a hypothesis at its point."""
    parts = [_describe_pair(name, result) for name, result in row.beside.items()]
    return f"{row.first} and {row.second} at {row.label}: {'; '.join(parts)}."


def _describe_pair(name: str, result: Difference) -> str:
    if result.mean_first is None or result.mean_second is None:
        return f"{name} accuracy was not recorded"
    return f"{name} accuracy {format_points(result.mean_first)} % and {format_points(result.mean_second)} %"


def format_study(report: StudyReport) -> str:
    """Return answers, self-checks and the main tables, for a terminal."""
    parts = [*list_answers(report), ""]
    if report.checks:
        parts += [*(f"{RESULTS[check.passed]}: {check.sentence}" for check in report.checks), ""]
    tables = [study_tables.make_main_table(report, name, MOST_POINTS) for name in study_tables.list_main(report)]
    parts += [to_text(table) for table in tables]
    if len(report.points) > MOST_POINTS:
        parts.append(f"{len(report.points) - MOST_POINTS} more points are in the report\n")
    if report.missing:
        parts.append(f"missing: {len(report.missing)}, first {report.missing[0]}; all are in the report\n")
    return "\n".join(parts)
