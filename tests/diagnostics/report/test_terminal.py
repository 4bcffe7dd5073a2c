from __future__ import annotations

from dataclasses import replace

from diagnostics.evaluation.analysis import analyse
from diagnostics.report.summary import MOST_MODELS, WIDTH, summarise
from tests.diagnostics.report.test_folder import recordings, usual


def test_summary_fits_a_terminal() -> None:
    report = analyse(recordings(usual()))
    lines = summarise(report).splitlines()
    assert len(lines) <= 14 and max(map(len, lines)) <= WIDTH
    first = [model.name for model in report.models if "/" not in model.name]
    assert [line.split()[0] for line in lines[1 : 1 + len(first)]] == first
    assert f"{100 * report.models[0].top1:.1f} (" in lines[1]


def test_many_models_are_counted_not_listed() -> None:
    report = analyse(recordings(usual()))
    student = next(model for model in report.models if model.name != "teacher")
    more = [replace(student, name=f"method{number}", method=f"method{number}") for number in range(12)]
    lines = summarise(replace(report, models=[*report.models, *more])).splitlines()
    listed = len([model for model in report.models if "/" not in model.name]) + 12
    assert f"and {listed - MOST_MODELS} more in the report" in lines


def test_only_corrected_differences_are_shown() -> None:
    report = analyse(recordings(usual()))
    best = max((m for m in report.models if "/" not in m.name and m.name != "teacher"), key=lambda m: m.top1)
    even, sure = ([replace(row, holm_log10_p=p) for row in report.pairs] for p in (-1.0, -3.0))
    assert "Shown to be ahead" not in summarise(replace(report, pairs=even))
    told = " ".join(summarise(replace(report, pairs=sure)).split())
    assert f"Best student: {best.name}" in told and "Shown to be ahead of" in told
