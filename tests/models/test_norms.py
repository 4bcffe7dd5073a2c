"""Also of training/checks.py."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from errors import warn
from models.norms import norms, set_momentum, share_left
from models.zoo import build_model
from training.checks import check
from training.phases import jobs_of


def test_statistics_follow_as_the_share_says():
    model = nn.Sequential(nn.BatchNorm1d(1, momentum=0.01), nn.BatchNorm1d(1, affine=False))
    variance = torch.tensor([[-0.1], [0.1]])  # 0.02 by torch's unbiased estimate
    for _ in range(30):
        model[0](variance)
    left = share_left(model, 30)
    assert left == pytest.approx(0.99**30)
    assert model[0].running_var.item() == pytest.approx(left + (1 - left) * 0.02, rel=1e-5)
    assert share_left(nn.BatchNorm1d(1), 1) == share_left(nn.BatchNorm1d(1, momentum=None), 1) == 0


def test_the_momentum_of_every_layer_is_set():
    with torch.device("meta"):
        model = build_model("mobilenet_v3_small", 3, image_size=32)
    assert {layer.momentum for layer in norms(model)} == {0.01}
    assert {layer.momentum for layer in norms(set_momentum(model, None))} == {0.01}
    assert {layer.momentum for layer in norms(set_momentum(model, 0.1))} == {0.1}


def test_a_training_that_is_too_short_for_them_is_told(make_experiment, capsys):
    warn.cache_clear()
    settings = ("student.arch=mobilenet_v3_small", "teacher.arch=resnet110", "methods=[two_stage, kd]")

    def look(*overrides):
        experiment = make_experiment(*settings, *overrides)
        check("all", experiment, jobs_of("all", experiment.config, experiment.folder))
        return capsys.readouterr().err

    assert "batch norm" not in look("student.norm_momentum=0.1")
    told = look()
    assert "student.arch: its batch norm follows slowly, 9" in told
    assert "(methods.two_stage.stage1): set student.norm_momentum=0.1" in told
    assert "(methods.kd.stage1)" in told and "stage2" not in told  # which goes on from the first
