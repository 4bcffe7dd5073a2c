from __future__ import annotations

import itertools
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from diagnostics.evaluation.analysis import compute_report
from diagnostics.evaluation.results import ModelAccuracy
from diagnostics.names import use_labels
from diagnostics.report.terminal import MOST_LINES, WIDTH, summarise, summarise_quickly
from diagnostics.report.verdict import write_verdict
from tests.diagnostics.report.test_folder import network, recordings, usual


@pytest.fixture(scope="module")
def report():
    return compute_report(recordings(usual()))


def test_summary_fits_a_terminal(report) -> None:
    lines = summarise(report, last="report: there").splitlines()
    assert len(lines) <= MOST_LINES and max(map(len, lines)) <= WIDTH and lines[-1] == "report: there"
    assert [line.split()[0] for line in lines[1:4]] == ["teacher", "two_stage", "kd"]
    assert f"{100 * report.models[0].top1:.1f} [" in lines[1]
    with use_labels({"kd": "KD of 2015"}):
        assert "KD of 2015" in summarise(report, last="").splitlines()[3]


def test_many_models_are_counted_not_listed(report) -> None:
    student = next(model for model in report.models if model.name != "teacher")
    more = [replace(student, name=f"method{number}", method=f"method{number}") for number in range(40)]
    lines = summarise(replace(report, models=[*report.models, *more]), last="report").splitlines()
    assert len(lines) == MOST_LINES
    (counted,) = (line for line in lines if line.endswith(" more in the report"))
    assert int(counted.split()[1]) + lines.index(counted) - 1 == 43


def test_the_best_student_is_ahead_by_corrected_tests_alone() -> None:
    names = {"teacher": 0.95, "kd": 0.9, "crd": 0.72, "two_stage": 0.5}
    report = compute_report(recordings([network(name, right=right) for name, right in names.items()]))
    assert write_verdict(report)[0] == "Best student: kd, 91.7 %. It is ahead of crd (p < 0.05 by Holm)."
    doubtful = [replace(row, holm_log10_p=math.log10(0.2)) for row in report.pairs]
    assert (
        write_verdict(replace(report, pairs=doubtful))[0]
        == "Best student: kd, 91.7 %. No difference is shown from crd."
    )


def test_equal_methods_are_seldom_called_different() -> None:
    """Five methods without a difference; uncorrected, 16 % of verdicts on the main one name a direction."""
    rng, names = np.random.default_rng(0), ["scratch", "kd", "crd", "dkd", "two_stage"]
    pairs = [SimpleNamespace(a=a, b=b) for a, b in itertools.combinations(names, 2)]
    wrong = []
    for _ in range(400):
        models = [
            ModelAccuracy(f"{name}/{seed}" if seed else name, name, seed, "", "", float(top1), 0.0, 1.0)
            for name in names
            for seed, top1 in enumerate(rng.normal(0.7, 0.01, 5))
        ]
        scores = SimpleNamespace(main="two_stage", models=models, pairs=pairs)
        text = " ".join(write_verdict(scores))
        names_main = "two_stage is ahead" in text or "two_stage is behind" in text
        wrong.append((names_main, "ahead" in text or "behind" in text))
    of_main, of_any = np.mean(wrong, axis=0)
    assert of_main < 0.07  # 0.05 and two standard errors
    assert of_any < 0.09  # with the line on the best student, a family of its own


def test_a_quick_report_prints_accuracies_and_pairs(report) -> None:
    text = summarise_quickly(report, report.images)
    assert "× parameters" not in text.partition("\n\n")[0].splitlines()[1] and "Holm p" in text
    assert text.endswith("\n".join(write_verdict(report)))
