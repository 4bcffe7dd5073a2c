"""Of training/stepping.py and training/ema.py: steps of several batches, averaged weights, and float16."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from errors import UserError
from losses.ce import cross_entropy
from models.checkpoint import load, save
from settings.reading import differing_keys, load_config
from settings.stages import Optimizer
from tests.training.cross_entropy import CrossEntropy, assert_same, copy_tensors
from training.ema import Average
from training.engine import Objective, Plan, Term, fit, seed_everything
from training.run.checkpointer import JobCheckpointer
from training.run.job_folder import JobFolder
from training.stepping import make_stepper, train_step

PLAIN = Optimizer(lr=0.05, momentum=0.9, schedule="onecycle", clip_norm=0.5)
PLAN = Plan(epochs=3, batch_size=16, optimizer=PLAIN, seed=3)


class StoppedError(Exception):
    """Stands for a kill."""


def without_norm():
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 7 * 7, 4))


def with_norm():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 7 * 7, 4)
    )


@pytest.fixture
def train(make_experiment, tmp_path):
    """`train("name", plan, ...)`: fit a small network in a folder of that name."""
    experiment = make_experiment("data.val_fraction=0.25")

    def run(name, plan=PLAN, network=without_norm, kind=CrossEntropy, float16=False):
        seed_everything(plan.seed)
        machine = replace(experiment.machine, float16=float16)
        objective = kind(network(), experiment.data, machine)
        folder = JobFolder(tmp_path / name)
        return objective, fit(objective, experiment.data, plan, machine, JobCheckpointer(folder)), folder

    return run


@pytest.mark.parametrize(("batch_size", "accumulate"), [(8, 2), (4, 4)])
def test_small_batches_together_are_a_large_one(train, batch_size, accumulate):
    """48 images: every batch of 16 is that of several small ones, clipped once and at the same rates."""
    whole, history, _ = train("whole")
    settings = PLAIN.model_copy(update={"accumulate": accumulate})
    parts, again, _ = train("parts", replace(PLAN, batch_size=batch_size, optimizer=settings))
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, rtol=1e-4, atol=1e-6)
    for one, other in zip(history, again, strict=True):
        assert other == pytest.approx(one, rel=1e-4)
    start = without_norm().state_dict()
    assert (parts.model[0].weight - start["0.weight"]).abs().max() > 0.01  # it has trained


def test_what_is_left_at_the_end_of_an_epoch_is_averaged_over_what_there_is(make_experiment):
    """5 batches, 2 a step: steps of 2, 2 and 1, by hand."""
    weight = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    targets = torch.randn(5, 2, dtype=torch.float64)

    class Towards(Objective):
        def __init__(self):
            super().__init__()
            self.weight = weight

        def forward(self, batch):
            return {"square": Term(((self.weight - targets[batch]) ** 2).sum(), 0.5)}

    settings = Optimizer(lr=0.1, momentum=0, weight_decay=0, schedule="exponential", gamma=0.5, accumulate=2)
    objective, machine = Towards(), make_experiment().machine
    stepper = make_stepper(objective, objective.parameter_groups(0.1), settings, 2, 5, machine)
    assert (stepper.steps, [stepper.size(step) for step in range(3)]) == (3, [2, 2, 1])
    expected, start = weight.detach().clone(), 0
    for step in range(3):
        size = stepper.size(step)
        batches = range(start, start + size)
        values = train_step(objective, iter(batches), stepper, machine, size)
        losses = [0.5 * ((expected - targets[batch]) ** 2).sum() for batch in batches]
        torch.testing.assert_close(values["square"], torch.stack(losses).mean() * 2)
        rate = 0.1 * 0.5 ** (step / 3)
        expected = expected - rate * torch.stack([expected - targets[batch] for batch in batches]).mean(dim=0)
        torch.testing.assert_close(weight.detach(), expected)
        start += size


def test_an_average_is_the_sum_of_powers_of_its_decay(make_experiment):
    objective = CrossEntropy(with_norm(), make_experiment().data, make_experiment().machine)
    objective.model[0].requires_grad_(False)
    frozen = objective.model[0].weight.detach().clone()
    average, seen = Average(objective, 0.7), []
    for step in range(4):
        with torch.no_grad():
            objective.model[4].weight.add_(torch.randn(4, 392))
            objective.model[1].running_mean.fill_(step + 1.0)
            objective.model[1].num_batches_tracked += 1
        seen.append(objective.model[4].weight.detach().clone())
        average.update()
    trained = copy_tensors(objective)
    assert average.model.n_averaged == 4
    shares = [0.7**3, 0.3 * 0.7**2, 0.3 * 0.7, 0.3]  # it begins with the first
    with average.in_place():
        expected = sum(share * weight for share, weight in zip(shares, seen, strict=True))
        torch.testing.assert_close(objective.model[4].weight.detach(), expected)
        mean = sum(share * (step + 1.0) for step, share in enumerate(shares))
        torch.testing.assert_close(objective.model[1].running_mean, torch.full((8,), mean))
        assert objective.model[1].num_batches_tracked == 4 and torch.equal(objective.model[0].weight, frozen)
    assert_same(trained, copy_tensors(objective))
    average.keep()
    torch.testing.assert_close(objective.model[4].weight.detach(), expected)


class Watching(CrossEntropy):
    """Keeps what it held when it was measured, and when each epoch began."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.measured, self.begun = [], []

    def measure(self):
        self.measured.append(self.model[0].weight.detach().clone())
        return {"test_loss": super().measure()["test_loss"]}

    def begin_epoch(self):
        self.begun.append(self.model[0].weight.detach().clone())


def test_the_average_is_measured_and_kept_while_training_goes_on_without_it(train):
    settings = PLAIN.model_copy(update={"ema": 0.8})
    plain, _, _ = train("plain", kind=Watching)
    averaged, history, folder = train("averaged", replace(PLAN, optimizer=settings), kind=Watching)
    for one, other in zip(plain.begun, averaged.begun, strict=True):
        assert torch.equal(one, other)
    assert all(not torch.equal(*pair) for pair in zip(plain.measured, averaged.measured, strict=True))
    assert torch.equal(averaged.model[0].weight, averaged.measured[-1])
    test = averaged.data.test
    logits = averaged.model.eval()(test.normalised(torch.arange(len(test))))
    assert history[-1]["test_loss"] == pytest.approx(cross_entropy(logits, test.labels).item())
    held = load(folder.checkpoint)
    assert torch.equal(held["objective"]["model.0.weight"], plain.measured[-1])  # what trains goes on from there
    assert torch.equal(held["average"]["module.model/0/weight"], averaged.measured[-1])


def test_the_best_epoch_is_kept_with_its_average(train):
    values = iter([0.5, 0.9, 0.7])

    class Scripted(Watching):
        def measure(self):
            return super().measure() | {"val_top1": next(values)}

    settings = PLAIN.model_copy(update={"ema": 0.8})
    objective, _, _ = train("best", replace(PLAN, optimizer=settings), kind=Scripted)
    assert torch.equal(objective.model[0].weight, objective.measured[1])


class StopsInSecondEpoch(CrossEntropy):
    calls = 0

    def forward(self, batch):
        self.calls += 1
        if self.calls == 9:  # six batches an epoch, in steps of 4 and 2
            raise StoppedError
        return super().forward(batch)


@pytest.mark.parametrize("float16", [False, True])
def test_all_of_it_resumes_to_the_same_bits(train, float16):
    settings = PLAIN.model_copy(update={"accumulate": 4, "ema": 0.8})
    plan = replace(PLAN, batch_size=8, optimizer=settings)
    whole, history, _ = train("whole", plan, with_norm, float16=float16)
    with pytest.raises(StoppedError):
        train("stopped", plan, with_norm, StopsInSecondEpoch, float16)
    resumed, again, folder = train("stopped", plan, with_norm, float16=float16)
    assert_same(whole.state_dict(), resumed.state_dict())
    assert history == again and all(math.isfinite(value) for line in history for value in line.values())
    state = load(folder.checkpoint)
    assert state["average"]["n_averaged"] == 3 * 2
    assert state["scaler"].get("scale") == (65536 if float16 else None)


def test_a_checkpoint_without_an_average_does_not_fit_a_training_with_one(train):
    with pytest.raises(StoppedError):
        train("job", replace(PLAN, batch_size=8), kind=StopsInSecondEpoch)
    with pytest.raises(UserError, match="does not fit what is trained here"):
        train("job", replace(PLAN, batch_size=8, optimizer=PLAIN.model_copy(update={"ema": 0.9})))


def test_a_scale_that_is_none_does_not_fit(make_experiment, train):
    _, _, folder = train("job", replace(PLAN, epochs=1), float16=True)
    state = load(folder.checkpoint)
    for wrong in ({}, {**state["scaler"], "scale": "much"}, {**state["scaler"], "scale": math.nan}):
        save(folder.checkpoint, {**state, "scaler": wrong})
        with pytest.raises(UserError, match="does not fit what is trained here"):
            train("job", float16=True)


def overflowing(steps):
    """Cross-entropy whose gradients are infinite in these of its steps, counted from 0; its values are fine."""

    class Overflowing(CrossEntropy):
        calls = 0

        def forward(self, batch):
            terms = super().forward(batch)
            if steps(self.calls):
                terms["ce"].value.register_hook(lambda gradient: gradient * torch.inf)
            self.calls += 1
            return terms

    return Overflowing


def test_a_step_that_overflows_is_left_out_and_nothing_moves_on(make_experiment):
    experiment = make_experiment()
    machine = replace(experiment.machine, float16=True)
    objective = overflowing(lambda step: step == 1)(without_norm(), experiment.data, machine)
    settings = PLAIN.model_copy(update={"ema": 0.9, "schedule": "exponential"})
    stepper = make_stepper(objective, objective.parameter_groups(0.05), settings, 1, 4, machine)
    batches, found = experiment.data.train.batches(16), []
    for _ in range(3):
        values = train_step(objective, [next(batches)], stepper, machine)
        assert values["loss"].isfinite()
        weights = objective.model[0].weight.detach().clone()
        found.append((weights, stepper.schedule.last_epoch, stepper.average.model.n_averaged.item()))
    assert torch.equal(found[0][0], found[1][0]) and not torch.equal(found[1][0], found[2][0])
    assert [counts for _, *counts in found] == [[1, 1], [1, 1], [2, 2]]
    assert stepper.scaler.get_scale() == 32768


def test_float16_clips_what_is_unscaled_and_ends_near_float32(train):
    exact, _, _ = train("float32")
    rounded, history, _ = train("float16", float16=True)
    for name, value in copy_tensors(exact).items():
        torch.testing.assert_close(rounded.state_dict()[name], value, rtol=0.05, atol=2e-3)
    assert any(not torch.equal(exact.state_dict()[name], value) for name, value in copy_tensors(rounded).items())


def test_some_overflows_are_usual_and_a_run_of_nothing_else_is_refused(train):
    _, history, _ = train("some", kind=overflowing(lambda step: step in (0, 4)), float16=True)
    assert len(history) == 3
    plan = replace(PLAN, epochs=20)
    with pytest.raises(UserError, match=r"epoch 9, step 3 of 3: gradients overflow float16 .* by 4\.9e-04"):
        train("all", plan, kind=overflowing(lambda step: True), float16=True)

    class Exploded(CrossEntropy):
        def forward(self, batch):
            return {"ce": Term(super().forward(batch)["ce"].value * torch.nan, 1)}

    with pytest.raises(UserError, match=r"epoch 1, step 1 of 3: ce became nan.*--set precision=float32"):
        train("nan", kind=Exploded, float16=True)


def test_an_average_that_is_not_finite_is_found(train):
    class Planted(CrossEntropy):
        def measure(self):
            with torch.no_grad():  # the average is in place
                self.model[3].bias[0] = torch.inf
            return {"test_loss": 1.0}

    with pytest.raises(UserError, match=r"the average of 3\.bias is no longer finite"):
        train("job", replace(PLAN, optimizer=PLAIN.model_copy(update={"ema": 0.5})), kind=Planted)


def test_each_option_is_part_of_what_a_run_is(tiny_config):
    plain = load_config(tiny_config, ["data.val_fraction=0.25"])
    for option, keys in {
        "methods.two_stage.stage2.optimizer.accumulate=2": ["methods.two_stage.stage2.optimizer.accumulate"],
        "methods.two_stage.stage1.optimizer.ema=0.9": ["methods.two_stage.stage1.optimizer.ema"],
        "teacher.early_stopping={}": [
            f"teacher.early_stopping.{key}" for key in ("watch", "patience", "min_delta")
        ],
        "precision=float16": ["precision"],
    }.items():
        other = load_config(tiny_config, ["data.val_fraction=0.25", option])
        assert differing_keys(plain, other) == keys


def test_ranges():
    for wrong in ({"ema": 1.0}, {"ema": 0}, {"accumulate": 0}):
        with pytest.raises(ValidationError):
            Optimizer(**wrong)
