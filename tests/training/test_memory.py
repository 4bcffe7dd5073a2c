"""Of training/memory.py, by what `check` of training/phases.py refuses."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from errors import UserError
from losses.bank import MemoryBank
from models.resnet import CifarResNet
from models.taps import TappedModel
from tests.training.untrained import prepare_job
from training import memory
from training.job_name import stage1
from training.memory import Followed, activations, bank_bytes, cache_bytes
from training.phases import check


def test_activations_are_counted_by_hand():
    model = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 8 * 8, 2))
    assert activations(model.to("meta"), 8) == 3 * 5 * 8 * 8 + 2


def test_a_network_is_followed_once_for_all_jobs():
    network, seen = CifarResNet(8, (4, 4, 6, 8), 3).to("meta"), []
    network.register_forward_hook(lambda *_: seen.append(1))
    followed = Followed(TappedModel(network, ["layer1.0", "layer3.0"]), 8)
    assert [followed.width for _ in range(3)] == [4 + 8] * 3 and len(seen) == 1
    assert len({followed.activations for _ in range(3)}) == 1 and len(seen) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["crd.dim=10000000000"], "crd.dim=10000000000: banks and projections take about"),
        (
            ["crd.dim=10000000000", "crd.negatives=batch", "crd.objective=infonce", "crd.mode=instance"],
            "projections",
        ),
        (["crd.num_negatives=1000000000000"], "crd.num_negatives=1000000000000: negatives of a batch"),
        (["teacher.views=100000000000"], "teacher.views=100000000000: cached outputs take about"),
        (["variants={v: {crd: {dim: 10000000000}}}"], "crd.dim=10000000000"),
        (["baselines.variants={v: {method: crd, crd: {dim: 10000000000}}}"], "crd.dim=10000000000"),
    ],
)
def test_what_no_machine_has_is_refused_with_both_figures(make_experiment, settings, message):
    with pytest.raises(UserError, match=f"{message}.* GB.*this machine has .* GB"):
        check("all", make_experiment(*settings))


@pytest.mark.parametrize(
    "settings", [[], ["crd.lambda_penultimate=0"], ["crd.negatives=shared"], ["crd.objective=regression"]]
)
def test_banks_take_the_bytes_that_are_counted(make_experiment, settings):
    experiment = make_experiment(*settings)
    modules = prepare_job(stage1(0), experiment).objective.modules()
    banks = [buffer for module in modules if isinstance(module, MemoryBank) for buffer in module.buffers()]
    assert sum(bank.nbytes for bank in banks) == bank_bytes(experiment.config.crd, 64)


def test_cached_outputs_take_the_bytes_that_are_counted(make_experiment, tmp_path):
    experiment = make_experiment("teacher.views=2", f"data.cache_dir={tmp_path / 'cache'}")
    prepare_job(stage1(0), experiment)
    arrays = [np.load(path) for path in tmp_path.glob("cache/teacher-*/view*.npy")]
    teacher = experiment.tapped(experiment.build(experiment.config.teacher), experiment.config.teacher)
    assert sum(array.nbytes for array in arrays) == cache_bytes(experiment, Followed(teacher, 16)) > 0


def test_batches_are_compared_with_what_the_device_has(make_experiment, monkeypatch):
    experiment = make_experiment()
    model = experiment.build(experiment.config.student)
    one = 4 * activations(model.to("meta"), 16)
    monkeypatch.setattr(memory, "memory_of", lambda machine: 16 * one)
    check("all", experiment)
    monkeypatch.setattr(memory, "memory_of", lambda machine: 16 * one - 1)
    with pytest.raises(UserError, match="teacher.batch_size=16: the activations of 16 images"):
        check("all", experiment)
    monkeypatch.setattr(memory, "memory_of", lambda machine: one - 1)
    with pytest.raises(UserError, match="data.image_size=16: the activations of one image"):
        check("all", experiment)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["crd.batch_size=65"], "crd.batch_size=65: there are 64 training images, use at most 64"),
        (["baselines.batch_size=65"], "baselines.batch_size=65"),
        (
            ["teacher.batch_size=1", "data.image_size=4", "data.crop=0"],
            "teacher.batch_size=1: batch stat.*use 2 or",
        ),
        (["kd.batch_size=1", "data.image_size=4", "data.crop=0", "kd.train=all"], "kd.batch_size=1: batch stat"),
    ],
)
def test_batches_that_cannot_be_trained_on_are_refused(make_experiment, tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        check("all", make_experiment(f"data.cache_dir={tmp_path}", *settings))


def test_batches_of_one_pass_where_maps_are_larger(make_experiment):
    check("all", make_experiment("teacher.batch_size=1", "kd.batch_size=1", "crd.batch_size=64"))
