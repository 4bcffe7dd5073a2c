"""Of training/prepared.py, and training/given.py."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from errors import warn
from models.taps import TappedModel
from tests.training.untrained import prepare_job
from training import prepared as module
from training.job_name import TEACHER, baseline, stage1, stage2


@pytest.fixture
def captured(monkeypatch) -> list[torch.nn.Module]:
    found: list[torch.nn.Module] = []
    monkeypatch.setattr(module, "capture_passes", found.append)
    return found


@pytest.mark.parametrize(
    ("name", "tapped"), [(TEACHER, False), (stage1(0), True), (stage2(0), False), (baseline(0, "crd_kd"), True)]
)
def test_what_steps_run_is_captured(make_experiment, captured, name, tapped):
    experiment = make_experiment()
    prepared = prepare_job(name, experiment)
    prepared.quicken(experiment.machine)
    assert not captured
    prepared.quicken(replace(experiment.machine, capture=True))
    [network] = captured
    assert isinstance(network, TappedModel) is tapped
    assert (network.model if tapped else network) is prepared.objective.model


@pytest.mark.parametrize(
    ("setting", "why"), [("teacher.optimizer.accumulate=2", "several batches"), ("data.workers=1", "data.workers")]
)
def test_nothing_is_captured_where_it_would_be_replayed_wrongly(make_experiment, captured, capsys, setting, why):
    experiment = make_experiment(setting)
    warn.cache_clear()
    prepare_job(TEACHER, experiment).quicken(replace(experiment.machine, capture=True))
    assert not captured
    assert f"capture=true counts for nothing with {why}" in capsys.readouterr().err


def test_blocks_are_compiled_between_the_taps(make_experiment, captured, monkeypatch):
    compiled = []
    monkeypatch.setattr(module, "compile_blocks", lambda model, taps: compiled.append((model, tuple(taps))))
    experiment = make_experiment()
    machine = replace(experiment.machine, compile=True)
    for name in (TEACHER, stage1(0)):
        prepare_job(name, experiment).quicken(machine)
    assert not captured
    assert [len(taps) for _, taps in compiled] == [0, 2]
