from __future__ import annotations

import pytest

from benchmarks import evaluation
from models.zoo import build_model


def test_every_part_of_an_evaluation_is_timed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"CLASSES": 3, "TRAIN": 30, "TEST": 30}.items():
        monkeypatch.setattr(evaluation, name, value)
    monkeypatch.setattr(evaluation, "build_model", lambda arch, classes: build_model("resnet8", classes))
    monkeypatch.setattr("diagnostics.evaluation.recording.COST_SECONDS", 0.01)
    evaluation.main(None)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("3 models, 30 test images")
    timed = [line for line in lines if line.rstrip().endswith(" s")]
    assert len(timed) == 9 and all(float(line.split()[-2]) >= 0 for line in timed)
