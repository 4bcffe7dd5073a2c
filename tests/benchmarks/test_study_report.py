from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import study_report
from benchmarks.timing import Timing
from study.measurements import is_study, load_measurements
from study.report import assemble


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_report, "SEEDS", 1)
    monkeypatch.setattr(study_report, "IMAGES", 20)


def test_the_made_up_study_is_whole_and_its_numbers_differ(tmp_path: Path) -> None:
    count = study_report.write_study(tmp_path)
    assert is_study(tmp_path)
    measured, context = load_measurements(tmp_path)
    assert len(context.recorded) == count == len(context.points) and context.seeds == [0]
    assert len({record.method for record in measured}) * count == len(measured)
    assert len({record.measures.following for record in measured if record.measures}) > 10
    assert assemble(measured, context).missing == []


def test_the_claim_names_how_many_runs_there_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_report, "report", lambda folder: Timing("processor time", 20.0, 20.0, 1, 0.0))
    (claim,) = study_report.claims()
    assert claim.what == "report of a study of 24 runs" and claim.met is False
