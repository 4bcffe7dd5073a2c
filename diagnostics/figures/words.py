"""What each figure shows, in words with its numbers: for who does not see it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from diagnostics.calibration import Calibration
from diagnostics.evaluation.recording import History
from diagnostics.evaluation.results import Faithfulness, Report
from diagnostics.figures.predictions import ENOUGH, chosen_classes, short
from diagnostics.names import is_first, method_of
from diagnostics.seeds import plain_number
from diagnostics.terms import list_measures, list_terms


def accuracy(report: Report) -> str:
    return _each(
        f"{model.name} {_share(model.top1)} % ({_share(model.low)} to {_share(model.high)})"
        for model in report.models
    )


def contingency(report: Report) -> str:
    shown = [pair for pair in report.pairs if pair.a == "teacher" and is_first(pair.b)]
    return _each(
        f"teacher and {pair.b}: both right {c.a:,}, only the teacher {c.b:,}, only {pair.b} {c.c:,}, "
        f"both wrong {c.d:,}"
        for pair in shown
        for c in [pair.statistics.counts]
    )


def class_change(report: Report) -> str:
    section = {name: row for name, row in (report.fidelity or {}).items() if is_first(name)}
    return _each(_changes(name, row, report.context.classes) for name, row in section.items())


def _changes(name: str, row: Faithfulness, classes: Sequence[str]) -> str:
    change = row.result.accuracy_change
    known = [value for value in change if value is not None]
    order = chosen_classes(change, most=len(change))
    lost, won = sum(value < 0 for value in known), sum(value > 0 for value in known)
    ends = [f"{classes[c]} {plain_number(100 * (change[c] or 0), 1, '+')}" for c in order[:1] + order[-1:]]
    return f"{name} lost in {lost} and gained in {won} of {len(known)} classes, from {' to '.join(ends)} points"


def layers(report: Report) -> str:
    lines = []
    for name, part in (report.representation or {}).items():
        rows = part.layers.matrix.values
        best = [max((value for value in row if value is not None), default=None) for row in rows]
        known = [value for value in best if value is not None]
        if known:
            last = rows[-1][-1]
            end = "" if last is None else f", last layers {plain_number(last, 2)}"
            lines.append(
                f"{name}: CKA of a teacher's layer with the student's most alike is {plain_number(min(known), 2)} "
                f"to {plain_number(max(known), 2)}{end}"
            )
    return _each(lines)


def tsne(report: Report) -> str:
    found = [
        f"{name}, silhouette of the features {plain_number(shape.geometry.silhouette, 2)}"
        for name, shape in report.geometry.items()
        if method_of(name) in ("teacher", "stage1", report.main) and shape.geometry.silhouette is not None
    ]
    return f"Maps of {_each(found)}" if found else "Maps of the features of the test images."


def reliability(report: Report) -> str:
    return _each(_bins(name, row) for name, row in report.calibration.items() if is_first(name))


def _bins(name: str, measured: Calibration) -> str:
    parts = [
        f"{_share(part.accuracy)} % right at confidence {_share(part.confidence)} % ({part.count:,} images)"
        for part in measured.reliability
        if part.accuracy is not None and part.confidence is not None and part.count >= ENOUGH
    ]
    few = sum(part.count for part in measured.reliability if part.count < ENOUGH)
    return f"{name}, ECE {_share(measured.ece)} %: " + "; ".join([*parts, f"{few:,} images in small bins"])


def corruptions(report: Report) -> str:
    lines = []
    for name, rates in report.robustness.errors.items():
        if is_first(name):
            kinds = [f"{kind.replace('_', ' ')} {_share(r[0])} to {_share(r[-1])} %" for kind, r in rates.items()]
            lines.append(f"error of {name} from the least to the worst severity: {', '.join(kinds)}")
    return _each(lines)


def cost(report: Report) -> str:
    top1 = {model.name: model.top1 for model in report.models}
    return _each(
        f"{name} {_share(top1[name])} % with {short(row.cost.parameters)} parameters and "
        f"{plain_number(row.cost.latencies[0].median_ms, 2)} ms"
        for name, row in report.cost.items()
        if name in top1
    )


def stage1(report: Report) -> str:
    history = report.curves.get("stage1", [])
    return _each(_ends(history, list_measures(history)))


def stage2(report: Report) -> str:
    history = report.curves.get(report.main or "", [])
    return _each(_ends(history, list_measures(history)))


def training(report: Report) -> str:
    lines = []
    for name, history in report.curves.items():
        accuracy = () if method_of(name) == "teacher" else ("test_top1",)
        parts = _ends(history, (*accuracy, "learning_rate", *list_terms(history)))
        if is_first(name) and parts:
            lines.append(f"{name} in {len(history)} epochs: {', '.join(parts)}")
    return _each(lines)


def _ends(history: History, names: Iterable[str]) -> list[str]:
    """First and last value of each measure that was taken."""
    found = []
    for name in names:
        values = [epoch[name] for epoch in history if name in epoch]
        if values:
            found.append(f"{name} from {_short(values[0])} to {_short(values[-1])}")
    return found


def _short(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def _share(value: float) -> str:
    return plain_number(100 * value, 1)


def _each(parts: Iterable[str]) -> str:
    return "; ".join(parts) + "."


WORDS: dict[str, Callable[[Report], str]] = {
    "accuracy": accuracy,
    "contingency": contingency,
    "class_change": class_change,
    "layers": layers,
    "tsne": tsne,
    "reliability": reliability,
    "corruptions": corruptions,
    "cost": cost,
    "stage1": stage1,
    "stage2": stage2,
    "training": training,
}
