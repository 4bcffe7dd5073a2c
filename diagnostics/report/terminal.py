"""Text for the terminal: the summary of a run in 15 lines of 100 columns, four counts, several runs."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from diagnostics.evaluation.results import Probe, Report
from diagnostics.evaluation.runs import RunsCompared
from diagnostics.names import is_first, show_name
from diagnostics.report.verdict import ONE_SEED, TEACHER, Scores, write_verdict
from diagnostics.statistics import SIGNIFICANCE, PairedStatistics
from diagnostics.tables.catalogue import has_several_seeds
from diagnostics.tables.comparison import make_errors_table, make_pairs_table, make_tests_table
from diagnostics.tables.models import make_models_table
from diagnostics.tables.probes import DATA, describe_probe, make_probe_table
from diagnostics.tables.runs import make_tables
from diagnostics.tables.table import Table, align_columns, to_text

WIDTH, MOST_LINES, MOST_OF_VERDICT = 100, 15, 5
PLANTED = "Trained with a planted cue: these are the test images without it (--phase study shows both)."


@dataclass(frozen=True)
class NamelessPair:
    """A pair without names."""

    statistics: PairedStatistics
    a: str = "A"
    b: str = "B"


def summarise(report: Report, last: str) -> str:
    """Return the summary of a report: a line a model, the verdict, evenness, seeds.

    last: the line that ends it.
    """
    uneven = [line for line in (report.given.sentences if report.given else []) if line.startswith("Not even")]
    tail = [_truncate(line) for line in uneven[:1]]
    if report.seeds.methods and not has_several_seeds(report):
        tail.append(ONE_SEED)
    if report.context.config.get("shortcut", {}).get("cue", "none") not in ("none", "file"):
        tail.append(PLANTED)
    table = make_models_table(report.models, report.seeds.methods, report.cost, report.images)
    return "\n".join([*_fit_verdict(table, report, len(tail) + 1), *tail, last])


def _fit_verdict(table: Table, scores: Scores, taken: int) -> list[str]:
    """Return the table and the verdict in the lines that are left, with the models that find room."""
    verdict = textwrap.wrap(show_name(" ".join(write_verdict(scores))), WIDTH)
    if len(verdict) > MOST_OF_VERDICT:
        verdict = textwrap.wrap(" ".join(verdict), WIDTH, max_lines=MOST_OF_VERDICT, placeholder=" ...")
    table = table.drop_empty()
    cells = [[text for text, _ in row] for row in table.show_rows()]
    head, *lines = align_columns(table, cells)
    room = MOST_LINES - 1 - taken - len(verdict)
    if len(lines) > room:
        lines = [*lines[: room - 1], f"and {len(lines) - room + 1} more in the report"]
    return [*map(_truncate, [head, *lines]), *verdict]


def summarise_quickly(scores: Scores, images: int) -> str:
    """Return accuracies, every paired test and the verdict, where nothing else was measured."""
    table = make_models_table(scores.models, scores.seeds.methods, {}, images)
    parts = [to_text(table), to_text(make_pairs_table(scores.pairs)), *map(show_name, write_verdict(scores))]
    return "\n".join(parts)


def summarise_probe(probe: Probe) -> str:
    """Return the images of a probe, a line a model, and the students that differ, in 14 lines."""
    table = make_probe_table([probe])
    kept = [number for number, column in enumerate(table.columns) if column is not DATA]
    columns, rows = [table.columns[n] for n in kept], [[row[n] for n in kept] for row in table.rows]
    table = replace(table, columns=columns, rows=rows)
    cells = [[text for text, _ in row] for row in table.show_rows()]
    head, *lines = align_columns(table, cells)
    told = textwrap.wrap(describe_probe(probe), WIDTH)
    verdict = textwrap.wrap(show_name(_describe_probe_pairs(probe)), WIDTH, max_lines=3, placeholder=" ...")
    room = MOST_LINES - len(told) - 1 - len(verdict) - 1
    if len(lines) > room:
        lines = [*lines[: room - 1], f"and {len(lines) - room + 1} more in the report"]
    return "\n".join([*told, *map(_truncate, [head, *lines]), *verdict])


def _describe_probe_pairs(probe: Probe) -> str:
    """Return which students of the first seed are ahead of which, by Holm's p."""
    pairs = [row for row in probe.pairs if is_first(row.a) and is_first(row.b) and TEACHER not in (row.a, row.b)]
    found = [row for row in pairs if row.holm_p is not None and row.holm_p < SIGNIFICANCE]
    names = [(row.b, row.a) if row.statistics.difference > 0 else (row.a, row.b) for row in found]
    if not pairs:
        return ""
    if not names:
        return "No difference between two students is shown (Holm's p < 0.05)."
    return (
        f"Students that differ by Holm's p < 0.05: {', '.join(f'{better} > {worse}' for better, worse in names)}."
    )


def _truncate(text: str) -> str:
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 4]} ..."


def format_counts(statistics: PairedStatistics) -> str:
    """Return tests and error similarity of one pair as text."""
    rows: Sequence[NamelessPair] = [NamelessPair(statistics)]
    accuracies = f"A {100 * statistics.accuracy_a:.2f} %, B {100 * statistics.accuracy_b:.2f} %"
    head = f"{statistics.n:,} images: {accuracies}; McNemar to quote: {statistics.quoted}\n"
    return "\n".join([head, to_text(make_tests_table(rows)), to_text(make_errors_table(rows))])


def format_runs(compared: RunsCompared, folder: Path) -> str:
    """Return the paper's table of several runs, all their models, and the tests across them, as text."""
    parts = [
        *(to_text(table) for table in make_tables(compared).values()),
        *(show_name(row.sentence) for row in compared.seeds or compared.pairs),
        *compared.notes,
        *(f"missing: {line}" for line in compared.missing),
        f"files: {folder}/report.html, report.json, tables/, figures/",
    ]
    return "\n".join(parts)
