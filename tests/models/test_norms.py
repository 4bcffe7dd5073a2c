"""Also of training/checks.py."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from errors import warn
from models.norms import compute_share_left, find_norms, set_momentum
from models.zoo import build_model
from training.checks import check_phase
from training.phases import list_phase_jobs


def test_share_of_initial_statistics_is_exact() -> None:
    model = nn.Sequential(nn.BatchNorm1d(1, momentum=0.01), nn.BatchNorm1d(1, affine=False))
    variance = torch.tensor([[-0.1], [0.1]])  # 0.02 by torch's unbiased estimate
    for _ in range(30):
        model[0](variance)
    left = compute_share_left(model, 30)
    assert left == pytest.approx(0.99**30)
    assert model[0].running_var.item() == pytest.approx(left + (1 - left) * 0.02, rel=1e-5)
    assert compute_share_left(nn.BatchNorm1d(1), 1) == compute_share_left(nn.BatchNorm1d(1, momentum=None), 1) == 0


def test_momentum_of_every_layer_is_set() -> None:
    with torch.device("meta"):
        model = build_model("mobilenet_v3_small", 3, image_size=32)
    assert {layer.momentum for layer in find_norms(model)} == {0.01}
    assert {layer.momentum for layer in find_norms(set_momentum(model, None))} == {0.01}
    assert {layer.momentum for layer in find_norms(set_momentum(model, 0.1))} == {0.1}


def test_too_short_trainings_get_a_warning(make_experiment, capsys) -> None:
    warn.cache_clear()
    settings = ("student.arch=mobilenet_v3_small", "teacher.arch=resnet110", "methods=[two_stage, kd]")

    def check_run(*overrides):
        experiment = make_experiment(*settings, *overrides)
        check_phase("all", experiment, list_phase_jobs("all", experiment.config, experiment.folder))
        return capsys.readouterr().err

    assert "batch norm" not in check_run("student.norm_momentum=0.1")
    told = check_run()
    assert "student.arch: its batch norm follows slowly, 9" in told
    assert "(methods.two_stage.stage1): set student.norm_momentum=0.1" in told
    assert "(methods.kd.stage1)" in told and "stage2" not in told  # which goes on from the first
