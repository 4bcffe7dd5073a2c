from __future__ import annotations

import json

import pytest
import torch

from config import KD
from losses.kd import distillation_loss
from training.checkpoint import load
from training.crd import train_stage1
from training.engine import make_optimizer, train_step
from training.kd import Distillation, train_stage2
from training.teacher import train_teacher
from training.teacher_outputs import LiveTeacher


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("stage2")


@pytest.fixture
def after_stage1(make_experiment, runs):
    def make(*overrides):
        experiment = make_experiment(*overrides, runs=runs)
        if not experiment.folder.teacher.finished:
            train_teacher(experiment)
            train_stage1(experiment, seed=0)
        experiment.folder.job(0, "stage2").clear()
        return experiment

    return make


LAST = "layer3.0."


@pytest.mark.parametrize(
    ("train", "may_change"),
    [("head", ("fc.",)), ("last_block", ("fc.", LAST)), ("all", ("",))],
)
def test_only_what_trains_changes_parameters_and_batch_statistics(after_stage1, train, may_change):
    experiment = after_stage1(f"kd.train={train}", "kd.feature_lr=0.001")
    before = load(experiment.folder.job(0, "stage1").model)
    train_stage2(experiment, seed=0)
    after = load(experiment.folder.job(0, "stage2").model)
    assert any(name.startswith(LAST) and "running_mean" in name for name in before)
    for name, value in before.items():
        assert torch.equal(value, after[name]) != name.startswith(may_change), name


def test_each_epoch_reports_both_parts_of_the_loss(after_stage1):
    experiment = after_stage1("kd.alpha=0.7")
    train_stage2(experiment, seed=0)
    folder = experiment.folder.job(0, "stage2")
    history = [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]
    expected = {"epoch", "learning_rate", "loss", "kl", "ce", "top1", "test_top1", "test_loss"}
    assert len(history) == 2 and all(set(measures) == expected for measures in history)
    for measures in history:
        assert measures["loss"] == pytest.approx(0.7 * measures["kl"] + 0.3 * measures["ce"], rel=1e-6)
    assert folder.result()["test_top1"] == history[-1]["test_top1"]


@pytest.fixture
def objective(make_experiment):
    experiment = make_experiment()

    def make(**settings):
        network = experiment.new_student(1).requires_grad_(False).eval()
        teacher = LiveTeacher(experiment.tapped(network, experiment.config.teacher), experiment.machine)
        model = experiment.new_student(0)
        return Distillation(model, teacher, KD(**settings), experiment.data, experiment.machine)

    return experiment, make


@pytest.mark.parametrize(("alpha", "temperature"), [(0.9, 4.0), (1.0, 2.0), (0.0, 4.0)])
def test_the_loss_is_the_distillation_loss(objective, alpha, temperature):
    experiment, make = objective
    distillation = make(alpha=alpha, temperature=temperature).train()
    batch = next(experiment.data.train.batches(16))
    with torch.no_grad():
        logits = distillation.model.eval()(batch.images)
        teacher = distillation.teacher.teacher(batch.images).logits
    expected = distillation_loss(logits, teacher, batch.labels, temperature, alpha)
    optimizer = torch.optim.SGD(distillation.model.fc.parameters(), lr=0.1)
    distillation.trained = []  # all batch statistics fixed, as above
    values = train_step(distillation.train(), batch, optimizer, experiment.machine)
    torch.testing.assert_close(values["loss"], expected)
    assert values["top1"] == (logits.argmax(1) == batch.labels).double().mean()


@pytest.mark.parametrize(
    ("train", "counts"),
    [("head", [2]), ("last_block", [2, 9]), ("all", [2, 27])],  # tensors a group
)
def test_the_head_and_the_features_have_rates_of_their_own(objective, train, counts):
    _, make = objective
    settings = KD(train=train, feature_lr=1e-5)
    distillation = make(**settings.model_dump())
    optimizer = make_optimizer(distillation, settings.optimizer)
    assert [group["lr"] for group in optimizer.param_groups] == [1e-4, 1e-5][: len(counts)]
    assert [len(group["params"]) for group in optimizer.param_groups] == counts
    assert isinstance(optimizer, torch.optim.Adam)
