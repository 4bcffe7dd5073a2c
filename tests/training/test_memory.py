from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from errors import UserError
from losses.bank import MemoryBank
from models.layout import infer_layout
from tests.training.untrained import prepare_job
from training import memory
from training.checks import check_phase, make_losses
from training.job_name import JobName
from training.memory import count_cache_bytes, list_needs
from training.phases import list_phase_jobs

STAGE1 = JobName("two_stage", 0, 1)


def look(experiment):
    check_phase("all", experiment, list_phase_jobs("all", experiment.config, experiment.folder))


def test_activations_are_counted_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 8 * 8, 2))
    assert infer_layout(model, 8).activations == 3 * 5 * 8 * 8 + 2


HUGE = 10**10
IN_BATCH = f"losses.crd={{dim: {HUGE}, negatives: batch, objective: infonce, mode: instance}}"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            [f"methods.crd.losses.crd.dim={HUGE}"],
            f"methods.crd.stage1.losses.crd.dim={HUGE}: banks and projections",
        ),
        ([IN_BATCH, "methods=[two_stage]"], f"methods.two_stage.stage1.losses.crd.dim={HUGE}: projections take"),
        ([f"losses.crd.num_negatives={HUGE}00"], f"losses.crd.num_negatives={HUGE}00: negatives of a batch"),
        ([f"teacher.cached_views={HUGE}0"], f"teacher.cached_views={HUGE}0: cached outputs take about"),
    ],
)
def test_too_large_settings_are_refused_with_both_figures(make_experiment, settings, message) -> None:
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
def test_banks_take_the_counted_bytes(make_experiment, settings) -> None:
    experiment = make_experiment(*settings)
    objective = prepare_job(STAGE1, experiment).objective
    banks = [
        buffer for module in objective.modules() if isinstance(module, MemoryBank) for buffer in module.buffers()
    ]
    (job,) = list_phase_jobs("crd", experiment.config, experiment.folder)
    layout = experiment.find_layout(experiment.config.student)
    needs = list_needs(experiment, make_losses(experiment, job), layout, job.stage.batch_size)
    counted = sum(need.bytes for _, need in needs if need.option == "dim")
    projected = sum(one.nbytes for one in objective.losses.parameters() if one.ndim == 2)
    assert bool(banks) is bool(needs) is ("crd" in job.stage.losses)
    if banks:
        assert counted == sum(bank.nbytes for bank in banks) + 3 * projected  # with gradient and momentum


def test_cached_outputs_take_the_counted_bytes(make_experiment, tmp_path) -> None:
    experiment = make_experiment("teacher.cached_views=2", f"data.cache_dir={tmp_path / 'cache'}")
    prepare_job(STAGE1, experiment)
    arrays = [np.load(path) for path in tmp_path.glob("cache/teacher-*/view*.npy")]
    assert sum(array.nbytes for array in arrays) == count_cache_bytes(experiment) > 0


def test_batches_must_fit_into_the_devices_memory(make_experiment, monkeypatch) -> None:
    experiment = make_experiment()
    one = 4 * experiment.find_layout(experiment.config.student).activations
    for has, message in (
        (16 * one, None),
        (16 * one - 1, "teacher.batch_size=16: the activations of 16 images"),
        (one - 1, "data.image_size=16: the activations of one image"),
    ):
        monkeypatch.setattr(memory, "get_memory", lambda machine, has=has: has)
        if message is None:
            look(experiment)
            continue
        with pytest.raises(UserError, match=message):
            look(experiment)
