"""What a study says in words: the answers to its hypotheses, what belongs beside it, and a text for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from diagnostics.tables.table import to_text
from study import tables as study_tables
from study.comparison import Contrast, points
from study.reported import StudyReport

NOT_STATED = "No hypothesis was stated before running, so there is no primary answer: all comparisons explore."


def answer(report: StudyReport) -> list[str]:
    """Return a sentence for each stated hypothesis, with its interval, and what must be read with them."""
    rows = report.hypotheses
    if not rows:
        return [f"No primary answer. {report.notes['hypotheses']}" if report.stated else NOT_STATED]
    tests = [[row for row in rows if row.name == name] for name in dict.fromkeys(row.name for row in rows)]
    leads = [min(found, key=lambda row: report.points.index(row.label)) for found in tests]
    lines = [_lead(lead, found) for lead, found in zip(leads, tests, strict=True)]
    lines += _beside(leads) if report.planted else []
    lines += dict.fromkeys(f"{row.caution}." for row in leads if row.caution)
    failed = [check.name.replace("_", " ") for check in report.checks if check.passed is False]
    if failed:
        lines.append(f"Self-checks that failed: {', '.join(failed)}. Read the answer with that in mind.")
    return lines


def _lead(row: Contrast, rows: Sequence[Contrast]) -> str:
    """Return the sentence of a hypothesis at its only point, or at one of several with the decisions at all."""
    if len(rows) == 1:
        return f"{row.sentence}."
    counts = Counter(one.decision for one in rows)
    decisions = ", ".join(f"{decision} at {count}" for decision, count in counts.items())
    return f"{row.sentence}. This is at {row.label}; of its {len(rows)} points: {decisions}."


def _beside(rows: Sequence[Contrast]) -> list[str]:
    """Return the accuracies of each two methods at a point once, with the hypotheses that they belong to."""
    named: dict[tuple[str, frozenset[str]], list[Contrast]] = {}
    for row in rows:
        named.setdefault((row.label, frozenset((row.first, row.second))), []).append(row)
    return [f"Beside {', '.join(row.name or '' for row in of)}: {_accuracies(of[0])}." for of in named.values()]


def _accuracies(row: Contrast) -> str:
    parts = []
    for name, result in row.beside.items():
        if result.difference is None or result.mean_first is None or result.mean_second is None:
            parts.append(f"{name} accuracy is not on record")
            continue
        both = f"{100 * result.mean_first:.1f} % ({row.first}) and {100 * result.mean_second:.1f} % ({row.second})"
        interval = ""
        if result.low is not None and result.high is not None:
            interval = f", 95 % {points(result.low)} to {points(result.high)}"
        parts.append(f"{name} accuracy {both}, difference {points(result.difference)} points{interval}")
    return "; ".join(parts)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def study_text(report: StudyReport) -> str:
    """Return answer, self-checks and the table of the first point, for a terminal."""
    first = report.summary[0]
    shown = {name: study_tables.MEASURES[name] for name in study_tables.BRIEF}
    lead = [row for row in report.summary if row.label == first.label]
    if not report.planted:
        lead, shown = report.summary, study_tables.PLAIN
    names = [] if report.planted else study_tables.keys(report)
    table = study_tables.measures(lead, shown, names)
    caption = f"{_capital(first.label)}. {table.caption}" if report.planted else table.caption
    parts = [*answer(report), ""]
    for check in report.checks:
        parts.append(f"{study_tables.RESULTS[check.passed]}: {check.sentence}")
    parts += ["", to_text(replace(table, caption=caption))] if report.checks else [to_text(table)]
    if report.missing:
        parts.append(f"missing: {len(report.missing)}, first {report.missing[0]}; all in the report\n")
    return "\n".join(parts)
