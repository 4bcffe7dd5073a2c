"""What `main_eval.py` prints of a run: a line a model, then what is shown about all students, in 100 columns."""

from __future__ import annotations

import textwrap

from diagnostics.evaluation.results import ModelAccuracy, Report
from diagnostics.names import is_first, listed, method_of
from diagnostics.report.verdict import verdict
from diagnostics.statistics import SIGNIFICANCE
from diagnostics.tables.catalogue import ONE_SEED_MORE

WIDTH, MOST_MODELS = 100, 8
TEACHER = "teacher"


def summarise(report: Report) -> str:
    """Return the summary of a report: models of the first seed (or means over seeds), best student, evenness."""
    models = [model for model in report.models if is_first(model.name)]
    width = max(len(model.name) for model in models)
    head = f"{'':{width}}  top-1, % (95 %)         less teacher   parameters   time an image"
    lines = [head, *(_show_model(report, model, width) for model in models[:MOST_MODELS])]
    if len(models) > MOST_MODELS:
        lines.append(f"and {len(models) - MOST_MODELS} more in the report")
    lines += _wrap(_name_best(report, models))
    lines += _wrap(" ".join(verdict(report).answer))
    uneven = [line for line in (report.given.sentences if report.given else []) if line.startswith("Not even")]
    lines += [_cut(line) for line in uneven[:1]]
    if all(method.summary.n < 2 for method in report.seeds.methods.values()) and report.seeds.methods:
        lines.append(_cut(ONE_SEED_MORE.partition(". ")[0] + "."))
    return "\n".join(lines)


def _show_model(report: Report, model: ModelAccuracy, width: int) -> str:
    accuracy = f"{100 * model.top1:.1f} ({100 * model.low:.1f} to {100 * model.high:.1f})"
    over = report.seeds.methods.get(model.method)
    if over is not None and over.summary.n > 1 and over.summary.low is not None and over.summary.high is not None:
        low, high = 100 * over.summary.low, 100 * over.summary.high
        accuracy = f"{100 * over.summary.mean:.1f} ({low:.1f} to {high:.1f}), {over.summary.n} seeds"
    teacher = next((one for one in report.models if one.name == TEACHER), None)
    apart = "" if teacher is None or model is teacher else f"{100 * (model.top1 - teacher.top1):+.1f}"
    cost = report.cost.get(model.name)
    size = f"{cost.cost.parameters:,}" if cost is not None else ""
    latency = cost.ratio.latency if cost is not None and cost.ratio is not None else {}
    ratio = next((value for value in latency.values() if value is not None), None)
    time = "" if ratio is None else f"{ratio:.2f} x teacher"
    return f"{model.name:{width}}  {accuracy:24} {apart:>11}   {size:>10}   {time}".rstrip()


def _name_best(report: Report, models: list[ModelAccuracy]) -> str:
    """Return which student has the highest accuracy, and from which others that is shown to differ."""
    students = [model for model in models if model.name not in (TEACHER, "stage1")]
    if not students:
        return ""
    best = max(students, key=lambda model: model.top1)
    behind: list[str] = []
    even: list[str] = []
    for row in report.pairs:
        other = row.b if row.a == best.name else row.a
        if best.name not in (row.a, row.b) or other == TEACHER or not is_first(other):
            continue
        shown = row.holm_log10_p is not None and 10**row.holm_log10_p < SIGNIFICANCE
        (behind if shown else even).append(method_of(other))
    parts = [f"Best student: {best.name}, {100 * best.top1:.1f} %."]
    parts += [f"Shown to be ahead of {listed(behind)} (McNemar, Holm)."] if behind else []
    parts += [f"No difference shown from {listed(even)}."] if even else []
    return " ".join(parts)


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH)


def _cut(text: str) -> str:
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 4]} ..."
