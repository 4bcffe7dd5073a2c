"""Of training/memory.py, by what training/checks.py refuses."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from errors import UserError
from losses.bank import MemoryBank
from tests.training.untrained import prepare_job
from training import memory
from training.checks import check, make_losses
from training.job_name import JobName
from training.memory import activations, cache_bytes, list_needs
from training.phases import jobs_of

STAGE1 = JobName("two_stage", 0, 1)


def look(experiment):
    check("all", experiment, jobs_of("all", experiment.config, experiment.folder))


def test_activations_are_counted_by_hand():
    model = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 8 * 8, 2))
    assert activations(model.to("meta"), 8) == 3 * 5 * 8 * 8 + 2


LARGE = "methods={v: {base: two_stage, stage1: {losses: {crd: {dim: 10000000000}}}}}"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["methods.crd.losses.crd.dim=10000000000"],
            "methods.crd.stage1.losses.crd.dim=10000000000: banks and projections take about",
        ),
        (
            [
                "losses.crd={dim: 10000000000, negatives: batch, objective: infonce, mode: instance}",
                "methods=[two_stage]",
            ],
            "methods.two_stage.stage1.losses.crd.dim=10000000000: projections take about",
        ),
        (
            ["losses.crd.num_negatives=1000000000000"],
            "losses.crd.num_negatives=1000000000000: negatives of a batch",
        ),
        (["teacher.cached_views=100000000000"], "teacher.cached_views=100000000000: cached outputs take about"),
        ([LARGE], "methods.v.stage1.losses.crd.dim=10000000000"),
    ],
)
def test_what_no_machine_has_is_refused_with_both_figures(make_experiment, settings, message):
    with pytest.raises(UserError, match=f"{message}.* GB.*this machine has .* GB"):
        look(make_experiment(*settings))


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["losses.crd.taps={last: 1}"],
        ["losses.crd.negatives=shared"],
        ["methods.two_stage.stage1.losses={crd: false, regression: 1}"],
    ],
)
def test_banks_take_the_bytes_that_are_counted(make_experiment, settings):
    experiment = make_experiment(*settings)
    objective = prepare_job(STAGE1, experiment).objective
    banks = [
        buffer for module in objective.modules() if isinstance(module, MemoryBank) for buffer in module.buffers()
    ]
    (job,) = jobs_of("crd", experiment.config, experiment.folder)
    layout = experiment.layout(experiment.config.student)
    needs = list_needs(experiment, make_losses(experiment, job), layout, job.stage.batch_size)
    counted = sum(need.bytes for _, need in needs if need.option == "dim")
    projected = sum(one.nbytes for one in objective.losses.parameters() if one.ndim == 2)
    assert bool(banks) is bool(needs) is ("crd" in job.stage.losses)
    if banks:
        assert counted == sum(bank.nbytes for bank in banks) + 3 * projected  # with gradient and momentum


def test_cached_outputs_take_the_bytes_that_are_counted(make_experiment, tmp_path):
    experiment = make_experiment("teacher.cached_views=2", f"data.cache_dir={tmp_path / 'cache'}")
    prepare_job(STAGE1, experiment)
    arrays = [np.load(path) for path in tmp_path.glob("cache/teacher-*/view*.npy")]
    assert sum(array.nbytes for array in arrays) == cache_bytes(experiment) > 0


def test_batches_are_compared_with_what_the_device_has(make_experiment, monkeypatch):
    experiment = make_experiment()
    model = experiment.build(experiment.config.student)
    one = 4 * activations(model.to("meta"), 16)
    monkeypatch.setattr(memory, "memory_of", lambda machine: 16 * one)
    look(experiment)
    monkeypatch.setattr(memory, "memory_of", lambda machine: 16 * one - 1)
    with pytest.raises(UserError, match="teacher.batch_size=16: the activations of 16 images"):
        look(experiment)
    monkeypatch.setattr(memory, "memory_of", lambda machine: one - 1)
    with pytest.raises(UserError, match="data.image_size=16: the activations of one image"):
        look(experiment)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["training.batch_size=65"], "batch_size=65: there are 64 training images, use at most 64"),
        (["methods.two_stage.stage1.batch_size=65"], "methods.two_stage.stage1.batch_size=65"),
        (["methods.kd.batch_size=65"], "methods.kd.stage1.batch_size=65"),
        (
            ["teacher.batch_size=1", "data.image_size=4", "data.crop=0"],
            "teacher.batch_size=1: batch stat.*use 2 or",
        ),
        (
            ["methods.two_stage.stage2={batch_size: 1, train: all}", "data.image_size=4", "data.crop=0"],
            "methods.two_stage.stage2.batch_size=1: batch stat",
        ),
    ],
)
def test_batches_that_cannot_be_trained_on_are_refused(make_experiment, tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        look(make_experiment(f"data.cache_dir={tmp_path}", *settings))


def test_batches_of_one_pass_where_maps_are_larger(make_experiment):
    look(make_experiment("teacher.batch_size=1", "methods.kd.batch_size=1", "methods.crd.batch_size=64"))
