"""Stage 1, and the losses between taps that it minimises: serves training/alignment.py too."""

from __future__ import annotations

import json

import pytest
import torch

from CKA import linear_cka
from configs.networks import Optimizer
from configs.stages import CRD
from dataset.loader import training_batches
from errors import UserError
from models.checkpoint import load
from models.heads import classifier
from models.sizes import Weightless
from training.alignment import HierarchicalLoss, build_losses
from training.crd import Alignment, HeldOut, mean_cosine, train_stage1
from training.engine import seed_everything
from training.job_folder import JobFolder
from training.job_name import stage1
from training.phases import check
from training.stepping import make_stepper, train_step
from training.stopping import ends_by
from training.teacher import train_teacher
from training.teacher_outputs import LiveTeacher


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("stage1")


@pytest.fixture
def with_teacher(make_experiment, runs):
    """An experiment that has a trained teacher, which all tests of this file share."""

    def make(*overrides, name="tiny"):
        experiment = make_experiment(f"name={name}", *overrides, runs=runs)
        if not experiment.folder.teacher.finished:
            train_teacher(experiment)
        return experiment

    return make


def networks(experiment):
    student, teacher = experiment.new_student(0), experiment.new_student(1).requires_grad_(False).eval()
    config = experiment.config
    return student, experiment.tapped(student, config.student), experiment.tapped(teacher, config.teacher)


def test_the_classifier_is_untouched_and_everything_before_it_trains(with_teacher):
    experiment = with_teacher("crd.bank_init=features", name="filled")  # from random banks the loss first rises
    start = experiment.new_student(0).state_dict()
    train_stage1(experiment, seed=0)
    folder = experiment.folder.job(stage1(0))
    end = load(folder.model)
    for name, value in start.items():
        same = torch.equal(value, end[name])
        assert same == name.startswith("fc."), name

    history = [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]
    assert len(history) == 2
    assert set(history[0]) == {
        "epoch",
        "learning_rate",
        "loss",
        *(f"{kind}_{tap}" for kind in ("crd", "cosine", "cka") for tap in ("penultimate", "last")),
    }
    for measures in history:
        assert measures["loss"] == pytest.approx(0.5 * measures["crd_penultimate"] + measures["crd_last"])
        assert -1 <= measures["cosine_last"] <= 1 and 0 <= measures["cka_last"] <= 1 + 1e-6
    assert history[1]["loss"] < history[0]["loss"]
    assert history[1]["learning_rate"] == pytest.approx(0.95 * history[0]["learning_rate"])

    result = folder.result()
    assert (result["epochs"], result["ended_by"]) == (2, "epochs")
    assert result["cosine_last"] == history[-1]["cosine_last"]
    projections = load(folder.path / "projections.pt")
    assert projections["losses.last.project_student.weight"].shape == (8, 64)
    assert len(projections) == 8 and all(".project_" in name for name in projections)


def test_teacher_outputs_from_a_complete_cache_give_the_same_measures(with_teacher, tmp_path):
    settings = ("teacher.views=2", f"data.cache_dir={tmp_path}")
    texts = []
    for name in ("makes_the_cache", "finds_the_cache"):
        experiment = with_teacher(*settings, name=name)
        train_stage1(experiment, seed=0)
        texts.append((experiment.folder.job(stage1(0)).path / "metrics.jsonl").read_text())
    assert texts[0] == texts[1]
    assert len(list(tmp_path.glob("teacher-*"))) == 1


def test_no_gradient_reaches_classifier_or_teacher(make_experiment):
    experiment = make_experiment()
    model, tapped, teacher = networks(experiment)
    crd = build_losses(experiment, tapped, teacher)
    held_out = HeldOut(experiment.data.test, teacher, experiment.machine, seed=0)
    objective = Alignment(model, tapped, crd, LiveTeacher(teacher, experiment.machine), held_out)
    images = experiment.data.train
    machine, groups = experiment.machine, objective.parameter_groups(0.1)
    stepper = make_stepper(objective, groups, Optimizer(lr=0.1), 1, 1, machine)
    train_step(objective, [next(images.batches(16))], stepper, machine)
    head = classifier(model)[1]
    assert not head.weight.requires_grad and head.weight.grad is None and head.bias.grad is None
    assert all(parameter.grad is None for parameter in teacher.parameters())
    rest = [parameter for name, parameter in objective.named_parameters() if "fc." not in name]
    assert len(rest) > 20 and all(parameter.grad is not None for parameter in rest)


def test_what_no_tap_reads_stays_as_it_was(with_teacher):
    experiment = with_teacher("student.taps=[layer1.0, layer2.0]", name="shallow")
    start = experiment.new_student(0).state_dict()
    train_stage1(experiment, seed=0)
    for name, value in load(experiment.folder.job(stage1(0)).model).items():
        if "running" not in name and "tracked" not in name:
            assert torch.equal(value, start[name]) == name.startswith(("layer3.", "fc.")), name


def test_held_out_measures_are_those_of_the_features(make_experiment):
    experiment = make_experiment()
    _, student, teacher = networks(experiment)
    crd = build_losses(experiment, student, teacher)
    images = experiment.data.test
    measures = HeldOut(images, teacher, experiment.machine, seed=0).measure(student.train(), crd)
    assert student.training
    with torch.no_grad():
        pixels = next(images.batches(len(images))).images
        own, other = student.eval()(pixels).taps[1], teacher.eval()(pixels).taps[1]
        projected = [
            layer(features).numpy()
            for layer, features in (
                (crd.losses["last"].project_student, own),
                (crd.losses["last"].project_teacher, other),
            )
        ]
    cosines = [(a @ b) / ((a @ a) * (b @ b)) ** 0.5 for a, b in zip(*projected, strict=True)]
    assert measures["cosine_last"] == pytest.approx(sum(cosines) / len(cosines), rel=1e-4)
    assert measures["cka_last"] == pytest.approx(linear_cka(own, other).value, rel=1e-4)
    same = HeldOut(images, student, experiment.machine, seed=0).measure(student, crd)
    assert same["cka_last"] == pytest.approx(1)


def test_both_taps_see_one_draw_and_a_weight_of_zero_drops_its_tap(make_experiment):
    experiment = make_experiment("crd.lambda_penultimate=0", "crd.lambda_last=2")
    _, student, teacher = networks(experiment)
    crd = build_losses(experiment, student, teacher)
    batch = next(experiment.data.train.batches(16))
    terms = crd(student(batch.images), teacher(batch.images), batch.indices)
    assert {name: term.weight for name, term in terms.items()} == {"crd_last": 2.0}

    both = HierarchicalLoss(make_experiment().config.crd, (32, 64), (32, 64), experiment.data.train.labels)
    draws = []
    for tap, loss in both.losses.items():
        loss.register_forward_pre_hook(lambda _, inputs, tap=tap: draws.append((tap, inputs[3])))
    seed_everything(0)
    both(student(batch.images), teacher(batch.images), batch.indices)
    assert [tap for tap, _ in draws] == ["penultimate", "last"] and draws[0][1] is draws[1][1]


def cosines(*values):
    return [{"cosine_penultimate": value, "cosine_last": value, "loss": 1.0} for value in values]


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        (cosines(0.1, 0.2), False),  # no more epochs than the patience
        (cosines(0.1, 0.2, 0.2, 0.205), True),  # 0.005 in two epochs
        (cosines(0.1, 0.2, 0.2, 0.22), False),
        (cosines(0.1, 0.3, 0.2, 0.29), True),  # below its best
        ([{"cosine_last": value} for value in (0.1, 0.2, 0.2, 0.212)], False),  # one tap counts in full
        ([{"cosine_penultimate": 0.0, "cosine_last": value} for value in (0.2, 0.2, 0.212)], True),
    ],
)
def test_a_plateau_is_too_small_a_rise_within_the_patience(history, expected):
    settings = CRD(until="plateau", patience=2, min_delta=0.01)
    assert ends_by(settings, mean_cosine)(history) is expected


def test_a_plateau_ends_stage1_and_is_said(with_teacher, capsys):
    settings = ("data.val_fraction=0.25", "crd.until=plateau", "crd.patience=1", "crd.min_delta=9", "crd.epochs=7")
    experiment = with_teacher(*settings, name="plateau")
    object.__setattr__(experiment.machine, "quiet", False)
    train_stage1(experiment, seed=0)
    result = experiment.folder.job(stage1(0)).result()
    assert (result["epochs"], result["ended_by"]) == (2, "plateau")
    assert "stage1 ended after 2 of 7 epochs: no improvement" in capsys.readouterr().out


NAMED = ("student.arch=vgg11", "data.image_size=32", "student.taps=[features.10, features.20]")


def test_taps_that_leave_parameters_untrained_by_both_stages_are_refused(make_experiment, tmp_path):
    # Before, 93 % of vgg11's parameters kept their initial values without a word.
    experiment = make_experiment(*NAMED, "kd.train=head")
    with pytest.raises(UserError, match=r"neither stage trains 93 % of vgg11's .* such as classifier\.6:input"):
        check("all", experiment)
    assert not experiment.folder.path.exists()
    with Weightless():  # drawing 129 million values four times more would tell nothing
        check("all", make_experiment(*NAMED, "kd.train=head", "student.allow_untrained=true"))
        check("all", make_experiment(*NAMED, "kd.train=last_block"))
        taps = "student.taps=[features.10, classifier.6:input]"
        check("all", make_experiment(*NAMED[:2], taps, "kd.train=head"))
        check("teacher", make_experiment(*NAMED, "kd.train=head"))  # which trains no student


def test_regression_whitens_over_one_view_and_is_reported_with_what_it_explains(with_teacher):
    experiment = with_teacher("crd.objective=regression", "crd.ridge=0.001", name="regression")
    train_stage1(experiment, seed=0)
    folder = experiment.folder.job(stage1(0))
    history = folder.history()
    for measures in history:
        terms = 0.5 * measures["regression_penultimate"] + measures["regression_last"]
        assert measures["loss"] == pytest.approx(terms)
    assert folder.result()["explained_last"] == history[-1]["explained_last"] < 1
    maps = load(folder.path / "projections.pt")
    teacher = experiment.trained(experiment.config.teacher, experiment.folder.teacher)
    tapped, data = experiment.tapped(teacher, experiment.config.teacher), experiment.data
    with torch.no_grad():
        batches = training_batches(data, experiment.config.crd.batch_size, seed=0, epoch=0, view=0)
        features = torch.cat([tapped(batch.images).taps[1] for batch in batches]).double()
    white = (
        features @ maps["losses.last.project_teacher.weight"].T.double() + maps["losses.last.project_teacher.bias"]
    )
    assert white.mean(dim=0).abs().max() < 1e-3
    variances = torch.linalg.eigvalsh(torch.cov(features.T, correction=0))
    expected = variances / (variances + 0.001 * variances[-1])
    found = torch.linalg.eigvalsh(torch.cov(white.T, correction=0))
    torch.testing.assert_close(found, expected.sort().values, rtol=1e-3, atol=1e-4)


def test_only_what_a_form_needs_is_seen_before_training(make_experiment):
    passes = []
    for settings in ((), ("crd.bank_init=features",), ("crd.objective=regression",)):
        experiment = make_experiment(*settings)
        _, student, teacher = networks(experiment)
        losses, seen = build_losses(experiment, student, teacher), []
        student.register_forward_hook(lambda *_, seen=seen: seen.append("student"))
        teacher.register_forward_hook(lambda *_, seen=seen: seen.append("teacher"))
        outputs = LiveTeacher(teacher, experiment.machine)
        losses.prepare(student, outputs, iter([next(experiment.data.train.batches(16))]), experiment.machine)
        passes.append(seen)
    assert passes == [[], ["teacher", "student"], ["teacher"]]


def test_an_interrupted_regression_goes_on_with_the_statistics_that_it_began_with(with_teacher, monkeypatch):
    settings = ("crd.objective=regression", "crd.epochs=3")
    whole, cut = (with_teacher(*settings, name=name) for name in ("whole", "cut"))
    train_stage1(whole, seed=0)
    save = JobFolder.save

    def save_and_stop(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(JobFolder, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            train_stage1(cut, seed=0)
    train_stage1(cut, seed=0)
    one, other = (run.folder.job(stage1(0)).path / "metrics.jsonl" for run in (whole, cut))
    assert one.read_text() == other.read_text()
    assert (
        whole.folder.job(stage1(0)).result() == cut.folder.job(stage1(0)).result()
    )  # the hash of the weights in it
