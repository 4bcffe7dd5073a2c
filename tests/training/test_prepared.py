from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from models.taps import TappedModel
from training import prepared as module
from training.job_name import TEACHER, baseline, stage1, stage2
from training.stand_ins import StandIns, prepare_job


@pytest.fixture
def captured(monkeypatch) -> list[torch.nn.Module]:
    found: list[torch.nn.Module] = []
    monkeypatch.setattr(module, "capture_passes", lambda network, machine: found.append(network))
    return found


def prepared_job(experiment, name):
    return prepare_job(name, experiment, StandIns(experiment.machine, limit=0.0))


@pytest.mark.parametrize(
    ("name", "tapped"), [(TEACHER, False), (stage1(0), True), (stage2(0), False), (baseline(0, "crd_kd"), True)]
)
def test_what_steps_run_is_captured(make_experiment, captured, name, tapped):
    experiment = make_experiment()
    prepared = prepared_job(experiment, name)
    prepared.quicken(experiment.machine)
    [network] = captured
    assert isinstance(network, TappedModel) is tapped
    assert (network.model if tapped else network) is prepared.objective.model


@pytest.mark.parametrize("setting", ["teacher.optimizer.accumulate=2", "data.workers=1"])
def test_nothing_is_captured_where_it_would_be_replayed_wrongly(make_experiment, captured, setting):
    experiment = make_experiment(setting)
    prepared_job(experiment, TEACHER).quicken(experiment.machine)
    assert not captured


def test_compiled_blocks_are_not_captured_too(make_experiment, captured, monkeypatch):
    compiled = []
    monkeypatch.setattr(module, "compile_blocks", lambda model, taps: compiled.append((model, tuple(taps))))
    experiment = make_experiment()
    machine = replace(experiment.machine, compile=True)
    for name in (TEACHER, stage1(0)):
        prepared_job(experiment, name).quicken(machine)
    assert not captured
    assert [len(taps) for _, taps in compiled] == [0, 2]
