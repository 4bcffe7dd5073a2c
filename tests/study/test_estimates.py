from __future__ import annotations

import pytest
import torch

from configs.reading import load_config
from models.machine import Machine
from study.estimates import estimate_study, to_train
from study.plan import StudyRuns, describe_study
from tests.study.small_study import STUDY
from training import estimates
from training.rehearsal import Rehearsal

TRIED = Rehearsal(64, 1.0, 2.0, 0.5, memory=10, gpu=0, checkpoint=7, weights=3, batch=16, whole_batch=16)


@pytest.fixture
def study(tiny_config, tmp_path) -> StudyRuns:
    config = load_config(tiny_config, [*STUDY, "seeds=[0, 1]"])
    return StudyRuns(config, tmp_path / "s", Machine(torch.device("cpu"), bfloat16=False, quiet=True))


def test_each_kind_of_job_is_tried_once_and_counted(study, monkeypatch):
    tried = []
    monkeypatch.setattr(estimates, "rehearse", lambda name, *_: tried.append(name) or TRIED)
    lines = {line.what: line for line in estimate_study(study, quiet=True)}
    assert {name.label for name in tried} == set(lines) and len(tried) == len(lines) == 6
    assert sum(line.count for line in lines.values()) == len(list(to_train(study))) == 68
    assert "68 to train, 28 to copy" in describe_study(study)
    assert lines["scratch"].seconds == 1 + 2 * 2 + 0.5 and lines["scratch"].count == 6


def test_what_is_finished_is_not_counted(study, monkeypatch):
    monkeypatch.setattr(estimates, "rehearse", lambda *_: TRIED)
    run = study.mine[0]
    for job in study.jobs(run):
        job.folder.finish(study.open(run).new_student(0), {})
    left = {line.what: line.count for line in estimate_study(study, quiet=True)}
    before = 68 - len(study.jobs(run))
    assert sum(left.values()) == before
