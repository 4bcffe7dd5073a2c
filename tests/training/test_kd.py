"""Of training/kd.py, and training/features.py."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch

from configs.networks import Network, Optimizer
from configs.stages import KD
from dataset.loader import imageless_batches, training_batches
from losses.kd import distillation_terms
from models.checkpoint import load
from models.heads import classifier
from models.machine import Machine
from models.parts import Part, part_of
from models.taps import head_inputs
from training import given, kd
from training.crd import train_stage1
from training.engine import evaluate_splits
from training.features import FrozenFeatures, ViewCache
from training.job_name import stage1, stage2
from training.kd import Distillation, train_stage2
from training.optimizers import make_optimizer
from training.stepping import make_stepper, train_step
from training.teacher import train_teacher
from training.teacher_outputs import LiveTeacher, teacher_outputs


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
        experiment.folder.job(stage2(0)).clear()
        return experiment

    return make


LAST = "layer3.0."


@pytest.mark.parametrize(
    ("train", "may_change"),
    [("head", ("fc.",)), ("last_block", ("fc.", LAST)), ("all", ("",))],
)
def test_only_what_trains_changes_parameters_and_batch_statistics(after_stage1, train, may_change):
    experiment = after_stage1(f"kd.train={train}", "kd.feature_lr=0.001")
    before = load(experiment.folder.job(stage1(0)).model)
    train_stage2(experiment, seed=0)
    after = load(experiment.folder.job(stage2(0)).model)
    assert any(name.startswith(LAST) and "running_mean" in name for name in before)
    for name, value in before.items():
        assert torch.equal(value, after[name]) != name.startswith(may_change), name


def test_each_epoch_reports_both_parts_of_the_loss(after_stage1):
    experiment = after_stage1("kd.alpha=0.7")
    train_stage2(experiment, seed=0)
    folder = experiment.folder.job(stage2(0))
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
        kd = KD(**settings)
        part = part_of(model, kd.train, None, experiment.config.data.image_size)
        return Distillation(model, teacher, part, kd, experiment.data, experiment.machine)

    return experiment, make


@pytest.mark.parametrize(("alpha", "temperature"), [(0.9, 4.0), (1.0, 2.0), (0.0, 4.0)])
def test_the_loss_is_the_distillation_loss(objective, alpha, temperature):
    experiment, make = objective
    distillation = make(alpha=alpha, temperature=temperature).train()
    batch = next(experiment.data.train.batches(16))
    with torch.no_grad():
        logits = distillation.model.eval()(batch.images)
        teacher = distillation.teacher.teacher(batch.images).logits
    kl, ce = distillation_terms(logits, teacher, batch.labels, temperature)
    expected = alpha * kl + (1 - alpha) * ce
    groups = [{"params": list(distillation.model.fc.parameters()), "lr": 0.1}]
    stepper = make_stepper(distillation, groups, Optimizer(lr=0.1), 1, 1, experiment.machine)
    distillation.part = Part([], [])  # all batch statistics fixed, as above
    values = train_step(distillation.train(), [batch], stepper, experiment.machine)
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
    optimizer = make_optimizer(distillation.parameter_groups(settings.optimizer.lr), settings.optimizer)
    assert [group["lr"] for group in optimizer.param_groups] == [1e-4, 1e-5][: len(counts)]
    assert [len(group["params"]) for group in optimizer.param_groups] == counts
    assert isinstance(optimizer, torch.optim.Adam)


def frozen(experiment, views=2):
    model = experiment.trained(experiment.config.student, experiment.folder.job(stage1(0)))
    cache = ViewCache(partial(head_inputs, model, machine=experiment.machine), experiment.data, views)
    return model, FrozenFeatures(model, experiment.data, experiment.machine, cache)


@pytest.mark.parametrize("bfloat16", [False, True])
def test_the_head_on_its_inputs_gives_the_logits(make_experiment, bfloat16):
    experiment = make_experiment()
    machine = Machine(torch.device("cpu"), bfloat16)
    for arch in ("resnet8", "mobilenet_v3_small"):  # the second has dropout and a hidden layer before its head
        model = experiment.build(Network(arch=arch)).eval()
        images = next(experiment.data.train.batches(8)).images
        read = head_inputs(model, images, machine)
        assert read.dtype == (torch.bfloat16 if bfloat16 else torch.float32)
        with torch.no_grad(), machine.autocast():
            assert torch.equal(classifier(model)[1](read), model(images)), arch


def test_cached_features_are_those_of_the_batch_and_its_view(after_stage1):
    experiment = after_stage1()
    model, features = frozen(experiment)
    for view in (3, 5, 3):
        batch = next(training_batches(experiment.data, 16, seed=4, epoch=1, view=view))
        imageless = next(imageless_batches(experiment.data, 16, seed=4, epoch=1, view=view))
        assert torch.equal(batch.indices, imageless.indices) and torch.equal(batch.labels, imageless.labels)
        expected = head_inputs(model, batch.images, experiment.machine)
        torch.testing.assert_close(features(imageless), expected, rtol=1e-5, atol=1e-6)


def test_processes_share_batches_without_images_as_those_with(make_experiment):
    data = make_experiment().data
    for rank in (0, 1):
        pairs = zip(
            training_batches(data, 16, 4, 1, 0, rank, 2),
            imageless_batches(data, 16, 4, 1, 0, rank, 2),
            strict=True,
        )
        assert all(torch.equal(one.indices, other.indices) for one, other in pairs)


def test_a_view_is_computed_once_and_goes_when_too_many_are_kept(after_stage1):
    experiment = after_stage1()
    seen = []
    cache = ViewCache(lambda images: seen.append(len(images)) or images.flatten(1), experiment.data, keep=2)
    for view in (0, 1, 0, 1, 2, 1, 0):  # 2 puts 0 out, which then comes anew
        cache(next(imageless_batches(experiment.data, 16, 0, 0, view)))
    assert seen == [64] * 4 and set(cache.views) == {2, 0}


def test_frozen_features_give_the_same_evaluation(after_stage1):
    experiment = after_stage1("data.val_fraction=0.25", "name=val")
    model, features = frozen(experiment)
    ours = features.evaluate(classifier(model)[1])
    reference = evaluate_splits(model, experiment.data, experiment.machine)
    assert ours == pytest.approx(reference, rel=1e-6) and set(ours) == set(reference)


@pytest.mark.parametrize("views", [0, 2])
def test_training_on_cached_features_is_training_on_images(after_stage1, monkeypatch, tmp_path, views):
    experiment = after_stage1(
        f"teacher.views={views}", f"data.cache_dir={tmp_path}", "kd.train=head", "kd.epochs=3"
    )
    folder = experiment.folder.job(stage2(0))
    train_stage2(experiment, seed=0)
    cached, history = load(folder.model), folder.history()
    folder.clear()
    monkeypatch.setattr(kd, "FrozenFeatures", lambda *_: None)
    monkeypatch.setattr(given, "teacher_outputs", lambda *parts, sees_images: teacher_outputs(*parts))
    train_stage2(experiment, seed=0)
    plain = load(folder.model)
    assert not torch.equal(plain["fc.weight"], load(experiment.folder.job(stage1(0)).model)["fc.weight"])
    for name, value in plain.items():
        torch.testing.assert_close(cached[name], value, rtol=1e-4, atol=1e-5)
    for ours, other in zip(history, folder.history(), strict=True):
        assert ours == pytest.approx(other, rel=1e-4)


def test_no_images_are_made_in_an_epoch_on_cached_features(after_stage1, monkeypatch):
    experiment = after_stage1("kd.train=head", "kd.alpha=0")
    monkeypatch.setattr("training.engine.training_batches", lambda *_: pytest.fail("made images"))
    monkeypatch.setattr("training.given.ensure_teacher", lambda *_: pytest.fail("asked for a teacher"))
    train_stage2(experiment, seed=0)
    assert set(experiment.folder.job(stage2(0)).history()[0]) == {
        *("epoch", "learning_rate", "loss", "ce", "top1", "test_top1", "test_loss")
    }


def test_resumed_training_of_the_head_is_bit_identical(after_stage1, monkeypatch):
    experiment = after_stage1("kd.train=head", "kd.epochs=4")
    folder = experiment.folder.job(stage2(0))
    train_stage2(experiment, seed=0)
    whole, metrics = load(folder.model), (folder.path / "metrics.jsonl").read_bytes()
    folder.clear()
    epochs, measure = [], Distillation.measure

    def stops(objective):
        epochs.append(1)
        if len(epochs) == 3:
            raise KeyboardInterrupt
        return measure(objective)

    monkeypatch.setattr(Distillation, "measure", stops)
    with pytest.raises(KeyboardInterrupt):
        train_stage2(experiment, seed=0)
    assert len(folder.history()) == 2
    train_stage2(experiment, seed=0)
    assert all(torch.equal(value, load(folder.model)[name]) for name, value in whole.items())
    assert (folder.path / "metrics.jsonl").read_bytes() == metrics
