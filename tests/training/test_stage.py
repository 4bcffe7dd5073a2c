from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from losses.kl import compute_softened_kl
from losses.loss import Samples
from settings.stages import LossUse
from tests.training.batches import cut_batch
from tests.training.cross_entropy import copy_tensors
from tests.training.untrained import prepare_job
from training.engine import seed_everything
from training.job_name import JobName
from training.optimizers import make_optimizer
from training.run.checkpointer import JobCheckpointer
from training.stage import compute_weight
from training.stepping import make_stepper, train_step

OWN = JobName("m", 0)
SECOND = JobName("m", 0, 2)


@pytest.fixture
def prepared(make_experiment):
    """`prepared("{losses: {ce: 1}}")`: a method's only stage, or its last, ready on untrained networks."""

    def make(method, *overrides, job=OWN):
        experiment = make_experiment(f"methods={{m: {method}}}", *overrides)
        return experiment, prepare_job(job, experiment)

    return make


def compute_terms(objective, batch):
    """The terms of a batch, with what losses draw alike each time."""
    seed_everything(0)
    return objective.eval()(batch)


def take_step(experiment, prepared, batch):
    objective, settings = prepared.objective, prepared.plan.optimizer
    stepper = make_stepper(
        objective, objective.make_parameter_groups(settings.lr), settings, 1, 1, experiment.machine
    )
    seed_everything(0)
    objective.start_epoch()
    return train_step(objective.train(), [batch], stepper, experiment.machine)


@pytest.mark.parametrize(
    ("train", "losses", "changes"),
    [
        ("all", "{ce: 1}", ("",)),
        ("last_block", "{ce: 1, kl: 1}", ("layer3.0.", "fc.")),
        ("features", "{crd: 1}", ("conv1.", "bn1.", "layer1.", "layer2.", "layer3.")),
        ("features", "{regression: {weight: 1, taps: {last: 1}}}", ("conv1.", "bn1.", "layer")),
    ],
)
def test_only_the_trained_part_changes(prepared, train, losses, changes) -> None:
    experiment, job = prepared(f"{{train: {train}, losses: {losses}}}")
    objective = job.objective
    before = copy_tensors(objective.model)
    take_step(experiment, job, cut_batch(experiment))
    after = copy_tensors(objective.model)
    assert any(name.startswith("layer3.0.") and "running_mean" in name for name in before)
    for name, value in before.items():
        assert torch.equal(value, after[name]) != name.startswith(changes), name


def test_a_head_on_frozen_features_changes_alone(prepared) -> None:
    experiment, job = prepared("[{losses: {ce: 1}, epochs: 1}, {train: head, losses: {ce: 1}}]", job=SECOND)
    before = copy_tensors(job.objective.model)
    job.fit(experiment.machine, JobCheckpointer(experiment.folder.get_job(SECOND)))
    changed = {
        name for name, value in copy_tensors(job.objective.model).items() if not torch.equal(value, before[name])
    }
    assert changed == {"fc.weight", "fc.bias"} and not job.objective.sees_images


def test_parameters_behind_all_taps_stay(prepared) -> None:
    taps = "taps: {penultimate: 0.5, stage2: 1}"
    experiment, job = prepared(
        f"{{train: features, losses: {{crd: {{{taps}}}}}}}", "student.taps.penultimate=layer1.0"
    )
    before = copy_tensors(job.objective.model)
    take_step(experiment, job, cut_batch(experiment))
    for name, value in copy_tensors(job.objective.model).items():
        if "running" not in name and "tracked" not in name:
            assert torch.equal(value, before[name]) == name.startswith(("layer3.", "fc.")), name


@pytest.mark.parametrize("stage", ["{train: all", "{train: last_block"])
@pytest.mark.parametrize(
    ("losses", "names"),
    [
        ("ce: 0.2, kl: {weight: 0.8, temperature: 3}", ["ce", "kl", "top1"]),
        (
            "kl: {weight: 0.8, temperature: 3}, crd: {weight: 0.3, taps: {penultimate: 0.5, last: 2}}",
            ["kl", "crd_penultimate", "crd_last", "top1"],
        ),
        (
            "crd: {weight: 0.3, taps: {last: 2, penultimate: 0.5}}, ce: 0.2",
            ["crd_last", "crd_penultimate", "ce", "top1"],
        ),
        ("regression: {weight: 3, taps: {stage1: 2}}, ce: 0.2", ["regression_stage1", "ce", "top1"]),
    ],
)
def test_terms_and_their_weighted_sum(prepared, losses, names, stage) -> None:
    experiment, job = prepared(f"{stage}, losses: {{{losses}}}}}")
    objective, batch = job.objective.eval(), cut_batch(experiment)
    terms = compute_terms(objective, batch)
    assert list(terms) == names  # in the order of the stage, and of the loss's taps
    total = sum(term.weight * term.value for term in terms.values())

    model, teacher = objective.model, objective.teacher.network
    expected = torch.zeros(())
    with torch.no_grad():
        logits, theirs = model(batch.images), teacher(batch.images)
        if "ce" in names:
            expected = expected + 0.2 * F.cross_entropy(logits, batch.labels)
        if "kl" in names:
            expected = expected + 0.8 * compute_softened_kl(logits, theirs, 3.0)
        own, other = objective._compute_view(batch), objective.teacher(batch)
        samples = Samples(batch.indices, batch.labels, batch.targets)
        if "crd_last" in names:
            seed_everything(0)
            aligned = objective.losses["crd"](own, other, samples)
            expected = expected + 0.3 * (0.5 * aligned["penultimate"] + 2 * aligned["last"])
        if "regression_stage1" in names:
            expected = expected + 3 * 2 * objective.losses["regression"](own, other, samples)["stage1"]
    torch.testing.assert_close(total.double(), expected.double(), rtol=1e-6, atol=0)
    assert terms["top1"].weight == 0 and terms["top1"].value == (logits.argmax(1) == batch.labels).double().mean()


def test_a_feature_stage_has_no_accuracy(prepared) -> None:
    experiment, job = prepared("{train: features, losses: {crd: 1}}")
    assert list(compute_terms(job.objective, cut_batch(experiment))) == ["crd_penultimate", "crd_last"]
    assert set(job.objective.measure()) == {
        f"{kind}_{tap}" for kind in ("cosine", "cka") for tap in ("penultimate", "last")
    }


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        ({"weight": 2}, [2, 2, 2, 2]),
        ({"weight": 2, "ramp_up": 4}, [0.5, 1, 1.5, 2]),
        ({"weight": 2, "ramp_up": 2}, [1, 2, 2, 2]),
        ({"weight": 2, "fade": True}, [1 + math.cos(math.pi * epoch / 4) for epoch in range(4)]),
        (
            {"weight": 2, "fade": True, "ramp_up": 2},
            [1, 1 + math.cos(math.pi / 4), 1, 1 + math.cos(3 * math.pi / 4)],
        ),
        ({"weight": 0, "ramp_up": 2}, [0, 0, 0, 0]),
    ],
)
def test_weights_over_epochs(use, expected) -> None:
    found = [compute_weight(LossUse(**use), epoch, 4) for epoch in range(4)]
    assert found == pytest.approx(expected)


def test_a_checkpoint_keeps_the_epoch_of_weights(prepared) -> None:
    experiment, job = prepared("{losses: {ce: 1, kl: {weight: 2, ramp_up: 4}}}")
    objective, batch = job.objective, cut_batch(experiment)
    for expected in (0.5, 1.0, 1.5):
        objective.start_epoch()
        assert compute_terms(objective, batch)["kl"].weight == expected
    _, again = prepared("{losses: {ce: 1, kl: {weight: 2, ramp_up: 4}}}")
    again.objective.load_state_dict(objective.state_dict())
    assert compute_terms(again.objective, batch)["kl"].weight == 1.5
    again.objective.start_epoch()
    assert compute_terms(again.objective, batch)["kl"].weight == 2.0


@pytest.mark.parametrize("loss", ["kl", "crd"])
def test_a_loss_of_weight_0_is_only_measured(prepared, loss) -> None:
    ends = {}
    for name, losses in {"with": f"{{ce: 1, {loss}: 0}}", "without": "{ce: 1}"}.items():
        experiment, job = prepared(f"{{losses: {losses}, epochs: 2}}", f"name={name}")
        start = copy_tensors(job.objective.losses)
        history = job.fit(experiment.machine, JobCheckpointer(experiment.folder.get_job(OWN)))
        ends[name] = copy_tensors(job.objective.model), history
        trained = [
            key for key, value in start.items() if not torch.equal(value, job.objective.losses.state_dict()[key])
        ]
        assert not [key for key in trained if "projection" in key]
    assert all(torch.equal(value, ends["without"][0][key]) for key, value in ends["with"][0].items())
    for measured, plain in zip(ends["with"][1], ends["without"][1], strict=True):
        more = measured.keys() - plain.keys()
        assert more == ({"kl"} if loss == "kl" else {"crd_penultimate", "crd_last"})
        assert all(measured[key] > 0 for key in more)
        assert {key: value for key, value in measured.items() if key not in more} == plain


def test_a_loss_of_weight_0_trains_no_features(prepared) -> None:
    losses = "{crd: {taps: {penultimate: 1}}, regression: {weight: 0, taps: {last: 1}}}"
    experiment, job = prepared(f"{{train: features, losses: {losses}}}", "student.taps.penultimate=layer1.0")
    trained = {name for name, one in job.objective.model.named_parameters() if one.requires_grad}
    assert {name.partition(".")[0] for name in trained} == {"conv1", "bn1", "layer1"}
    assert "regression_last" in compute_terms(job.objective, cut_batch(experiment))


@pytest.mark.parametrize(
    ("train", "counts"),
    [("head", [2]), ("last_block", [2, 9]), ("all", [2, 27])],  # tensors a group
)
def test_head_and_features_have_their_own_rates(prepared, train, counts) -> None:
    rates = "feature_lr: 1.0e-5, optimizer: {name: adam, lr: 1.0e-4}"
    _, job = prepared(f"{{train: {train}, losses: {{ce: 1}}, {rates}}}")
    settings = job.plan.optimizer
    optimizer = make_optimizer(job.objective.make_parameter_groups(settings.lr), settings)
    assert [group["lr"] for group in optimizer.param_groups] == [1e-4, 1e-5][: len(counts)]
    assert [len(group["params"]) for group in optimizer.param_groups] == counts
    assert isinstance(optimizer, torch.optim.Adam)


def test_projections_train_at_the_rate_of_the_head(prepared) -> None:
    _, job = prepared("{losses: {ce: 1, crd: 1}, feature_lr: 0.001}")
    first, rest = job.objective.make_parameter_groups(0.1)
    assert (len(first["params"]), first["lr"], rest["lr"]) == (2 + 2 * 4, 0.1, 0.001)  # two taps, two networks


@pytest.mark.parametrize(
    ("losses", "seen"),
    [
        ("crd: 1", []),
        ("crd: {bank_init: features}", ["teacher", "student"]),
        ("regression: 1", ["teacher"]),
        ("regression: 1, crd: {bank_init: features}", ["teacher", "student"]),
        ("ce: 1, kl: 1", []),
    ],
)
def test_a_first_pass_runs_what_losses_need(prepared, losses, seen) -> None:
    experiment, job = prepared(f"{{losses: {{{losses}}}}}")
    objective, passes = job.objective.train(), []
    objective.tapped.register_forward_hook(lambda *_: passes.append("student"))
    if objective.teacher is not None:
        objective.teacher.outputs.teacher.register_forward_hook(lambda *_: passes.append("teacher"))
    before = copy_tensors(objective.model)
    objective.prepare(iter([cut_batch(experiment)]))
    assert passes == seen
    after = copy_tensors(objective.model)
    assert all(torch.equal(value, after[name]) for name, value in before.items())  # batch statistics too
    assert all(parameter.grad is None for parameter in objective.parameters())


def test_projections_are_those_of_all_losses(prepared) -> None:
    _, job = prepared("{train: features, losses: {crd: {taps: {last: 1}}, regression: {taps: {penultimate: 1}}}}")
    assert set(job.objective.collect_projections()) == {
        f"{tap}.{side}.{kind}"
        for tap in ("last", "penultimate")
        for side in ("student", "teacher")
        for kind in ("weight", "bias")
    }
    _, none = prepared("{losses: {ce: 1}}")
    assert none.objective.collect_projections() == {} and none.objective.teacher is None


def test_images_count_by_their_weights(prepared) -> None:
    experiment, job = prepared("{losses: {ce: 1, kl: 1}}")
    objective, weights = job.objective.eval(), torch.zeros(64)
    weights[37] = 6.0
    objective.image_weights = weights
    batch = cut_batch(experiment, size=64)
    row = (batch.indices == 37).nonzero()[0]
    one = type(batch)(batch.images[row], batch.labels[row], batch.indices[row], batch.view)
    with torch.no_grad():
        found = objective(batch)
        objective.image_weights = None
        for name in ("ce", "kl"):
            expected = 6.0 * objective(one)[name].value / 64
            torch.testing.assert_close(found[name].value, expected, rtol=1e-4, atol=1e-6)


def test_mixed_images_reach_labels_and_teacher(make_experiment) -> None:
    experiment = make_experiment("data.mix=mixup", "data.mix_strength=1")
    batch = cut_batch(experiment)
    assert ((batch.targets > 0).sum(dim=1) == 2).any()
    for job in (JobName("scratch", 0), JobName("crd_kd", 0), JobName("two_stage", 0, 2)):
        objective = prepare_job(job, experiment).objective.eval()
        with torch.no_grad():
            logits, terms = objective.model(batch.images), objective(batch)
            expected = -(logits.log_softmax(dim=1) * batch.targets).sum(dim=1).mean()
            torch.testing.assert_close(terms["ce"].value, expected, msg=str(job))
            assert not torch.isclose(expected, F.cross_entropy(logits, batch.labels))
            if "kl" in terms:
                kl = compute_softened_kl(logits, objective.teacher.network(batch.images), 4.0)
                assert torch.isclose(terms["kl"].value, kl), job
