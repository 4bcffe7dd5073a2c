from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from errors import UserError
from losses.ce import compute_cross_entropy
from models.checkpoint import load, save
from settings.stages import Optimizer
from tests.training.cross_entropy import CrossEntropy, assert_same, copy_tensors
from training.ema import Average
from training.engine import Objective, Term, TrainingPlan, fit, seed_everything
from training.run.checkpointer import JobCheckpointer
from training.run.job_folder import JobFolder
from training.stepping import make_stepper, train_step

PLAIN = Optimizer(lr=0.05, momentum=0.9, schedule="onecycle", clip_norm=0.5)
PLAN = TrainingPlan(epochs=3, batch_size=16, optimizer=PLAIN, seed=3)


class StoppedError(Exception):
    """Stands for a kill."""


def make_plain():
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 7 * 7, 4))


def make_normed():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 7 * 7, 4)
    )


@pytest.fixture
def train(make_experiment, tmp_path):
    """`train("name", plan, ...)`: fit a small network in a folder of that name."""
    experiment = make_experiment("data.val_fraction=0.25")

    def run(name, plan=PLAN, network=make_plain, kind=CrossEntropy, float16=False):
        seed_everything(plan.seed)
        machine = replace(experiment.machine, float16=float16)
        objective = kind(network(), experiment.data, machine)
        folder = JobFolder(tmp_path / name)
        return objective, fit(objective, experiment.data, plan, machine, JobCheckpointer(folder)), folder

    return run


@pytest.mark.parametrize(("batch_size", "accumulate"), [(8, 2), (4, 4)])
def test_accumulated_batches_equal_a_large_one(train, batch_size, accumulate) -> None:
    """48 images: every batch of 16 is that of several small ones, clipped once and at the same rates."""
    whole, history, _ = train("whole")
    settings = PLAIN.model_copy(update={"accumulate": accumulate})
    parts, again, _ = train("parts", replace(PLAN, batch_size=batch_size, optimizer=settings))
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, rtol=1e-4, atol=1e-6)
    for one, other in zip(history, again, strict=True):
        assert other == pytest.approx(one, rel=1e-4)
    start = make_plain().state_dict()
    assert (parts.model[0].weight - start["0.weight"]).abs().max() > 0.01  # it has trained


def test_the_last_step_averages_the_remaining_batches(make_experiment) -> None:
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
    stepper = make_stepper(objective, objective.make_parameter_groups(0.1), settings, 2, 5, machine)
    assert (stepper.steps, [stepper.count_batches(step) for step in range(3)]) == (3, [2, 2, 1])
    expected, start = weight.detach().clone(), 0
    for step in range(3):
        size = stepper.count_batches(step)
        batches = range(start, start + size)
        values = train_step(objective, iter(batches), stepper, machine, size)
        losses = [0.5 * ((expected - targets[batch]) ** 2).sum() for batch in batches]
        torch.testing.assert_close(values["square"], torch.stack(losses).mean() * 2)
        rate = 0.1 * 0.5 ** (step / 3)
        expected = expected - rate * torch.stack([expected - targets[batch] for batch in batches]).mean(dim=0)
        torch.testing.assert_close(weight.detach(), expected)
        start += size


def test_an_average_sums_powers_of_its_decay(make_experiment) -> None:
    objective = CrossEntropy(make_normed(), make_experiment().data, make_experiment().machine)
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
    assert average.steps == 4
    shares = [0.7**3, 0.3 * 0.7**2, 0.3 * 0.7, 0.3]  # it begins with the first
    with average.hold():
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

    def start_epoch(self):
        self.begun.append(self.model[0].weight.detach().clone())


def test_the_average_is_measured_and_kept(train) -> None:
    settings = PLAIN.model_copy(update={"ema": 0.8})
    plain, _, _ = train("plain", kind=Watching)
    averaged, history, folder = train("averaged", replace(PLAN, optimizer=settings), kind=Watching)
    for one, other in zip(plain.begun, averaged.begun, strict=True):
        assert torch.equal(one, other)
    assert all(not torch.equal(*pair) for pair in zip(plain.measured, averaged.measured, strict=True))
    assert torch.equal(averaged.model[0].weight, averaged.measured[-1])
    test = averaged.data.test
    logits = averaged.model.eval()(test.load_normalised(torch.arange(len(test))))
    assert history[-1]["test_loss"] == pytest.approx(compute_cross_entropy(logits, test.labels).item())
    held = load(folder.checkpoint)
    assert torch.equal(held["objective"]["model.0.weight"], plain.measured[-1])  # what trains goes on from there
    assert torch.equal(held["average"]["weights"]["model.0.weight"], averaged.measured[-1])


def test_the_best_epoch_keeps_its_average(train) -> None:
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
def test_resume_within_an_epoch_gives_identical_weights(train, float16) -> None:
    settings = PLAIN.model_copy(update={"accumulate": 4, "ema": 0.8})
    plan = replace(PLAN, batch_size=8, optimizer=settings)
    whole, history, _ = train("whole", plan, make_normed, float16=float16)
    with pytest.raises(StoppedError):
        train("stopped", plan, make_normed, StopsInSecondEpoch, float16)
    resumed, again, folder = train("stopped", plan, make_normed, float16=float16)
    assert_same(whole.state_dict(), resumed.state_dict())
    assert history == again and all(math.isfinite(value) for line in history for value in line.values())
    state = load(folder.checkpoint)
    assert state["average"]["steps"] == 3 * 2
    assert state["scaler"].get("scale") == (65536 if float16 else None)


def test_a_checkpoint_without_average_does_not_fit(train) -> None:
    with pytest.raises(StoppedError):
        train("job", replace(PLAN, batch_size=8), kind=StopsInSecondEpoch)
    with pytest.raises(UserError, match="does not fit what is trained here"):
        train("job", replace(PLAN, batch_size=8, optimizer=PLAIN.model_copy(update={"ema": 0.9})))


def test_a_wrong_loss_scale_does_not_fit(train) -> None:
    _, _, folder = train("job", replace(PLAN, epochs=1), float16=True)
    state = load(folder.checkpoint)
    for wrong in ({}, {**state["scaler"], "scale": "much"}, {**state["scaler"], "scale": math.nan}):
        save(folder.checkpoint, {**state, "scaler": wrong})
        with pytest.raises(UserError, match="does not fit what is trained here"):
            train("job", float16=True)


def make_overflowing(steps):
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


def test_an_overflowing_step_is_left_out(make_experiment) -> None:
    experiment = make_experiment()
    machine = replace(experiment.machine, float16=True)
    objective = make_overflowing(lambda step: step == 1)(make_plain(), experiment.data, machine)
    settings = PLAIN.model_copy(update={"ema": 0.9, "schedule": "exponential"})
    stepper = make_stepper(objective, objective.make_parameter_groups(0.05), settings, 1, 4, machine)
    batches, found = experiment.data.train.iter_batches(16), []
    for _ in range(3):
        values = train_step(objective, [next(batches)], stepper, machine)
        assert values["loss"].isfinite()
        weights = objective.model[0].weight.detach().clone()
        found.append((weights, stepper.schedule.last_epoch, stepper.average.steps))
    assert torch.equal(found[0][0], found[1][0]) and not torch.equal(found[1][0], found[2][0])
    assert [counts for _, *counts in found] == [[1, 1], [1, 1], [2, 2]]
    assert stepper.scaler.get_scale() == 32768


def test_float16_ends_near_float32(train) -> None:
    exact, _, _ = train("float32")
    rounded, history, _ = train("float16", float16=True)
    for name, value in copy_tensors(exact).items():
        torch.testing.assert_close(rounded.state_dict()[name], value, rtol=0.05, atol=2e-3)
    assert any(not torch.equal(exact.state_dict()[name], value) for name, value in copy_tensors(rounded).items())


def test_only_endless_overflows_are_refused(train) -> None:
    _, history, _ = train("some", kind=make_overflowing(lambda step: step in (0, 4)), float16=True)
    assert len(history) == 3
    plan = replace(PLAN, epochs=20)
    with pytest.raises(UserError, match=r"epoch 9, step 3 of 3: gradients overflow float16 .* by 4\.9e-04"):
        train("all", plan, kind=make_overflowing(lambda step: True), float16=True)

    class Exploded(CrossEntropy):
        def forward(self, batch):
            return {"ce": Term(super().forward(batch)["ce"].value * torch.nan, 1)}

    with pytest.raises(UserError, match=r"epoch 1, step 1 of 3: ce became nan.*--set precision=float32"):
        train("nan", kind=Exploded, float16=True)


def test_a_non_finite_average_is_refused(train) -> None:
    class Planted(CrossEntropy):
        def measure(self):
            with torch.no_grad():  # the average is in place
                self.model[3].bias[0] = torch.inf
            return {"test_loss": 1.0}

    with pytest.raises(UserError, match=r"the average of 3\.bias is no longer finite"):
        train("job", replace(PLAN, optimizer=PLAIN.model_copy(update={"ema": 0.5})), kind=Planted)
