"""Of training/engine.py, training/checkpointing.py and training/evaluation.py."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import accuracy_score, log_loss
from torch import nn

from errors import UserError
from settings.stages import Optimizer
from tests.test_layering import ROOT, imported_with
from tests.training.cross_entropy import CrossEntropy, assert_same, copy_tensors
from training.checkpointing import CheckpointDecision
from training.engine import Objective, Term, TrainingPlan, fit, seed_everything
from training.evaluation import compute_top1, evaluate, evaluate_splits, measure_logits, predict
from training.optimizers import make_schedule
from training.run.checkpointer import JobCheckpointer
from training.run.job_folder import JobFolder
from training.stepping import make_stepper, train_step

PLAN = TrainingPlan(
    epochs=3, batch_size=16, optimizer=Optimizer(lr=0.02, nesterov=True, schedule="onecycle"), seed=3
)


class StoppedError(Exception):
    """Stands for a kill."""


@pytest.fixture
def train(make_experiment, tmp_path):
    """`train("name", plan)`: fit a small network with dropout, batch statistics and cross-entropy in a folder."""
    experiment = make_experiment()

    def run(name, plan=PLAN, kind=CrossEntropy, checkpointer=None):
        seed_everything(plan.seed)
        model = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2))
        objective = kind(model.append(nn.Linear(8 * 7 * 7, 4)), experiment.data, experiment.machine)
        checkpointer = checkpointer or JobCheckpointer(JobFolder(tmp_path / name))
        return objective, fit(objective, experiment.data, plan, experiment.machine, checkpointer), tmp_path / name

    return run


def test_a_seed_decides_the_result(train) -> None:
    first, history, _ = train("first")
    second, again, _ = train("second")
    other, different, _ = train("other", replace(PLAN, seed=4))
    assert_same(first.state_dict(), second.state_dict())
    assert history == again and history != different
    assert not torch.equal(first.model[0].weight, other.model[0].weight)
    assert [measures["epoch"] for measures in history] == [1, 2, 3]
    assert set(history[0]) == {"epoch", "learning_rate", "loss", "ce", "top1", "test_top1", "test_loss"}


class InMemory:
    """A checkpointer without files."""

    path = Path("nowhere")

    def __init__(self):
        self.calls = []

    def load(self, state):
        return False

    def decide(self, state):
        return CheckpointDecision(is_due=state.progress.steps == 2, signal=0)

    def save(self, state):
        self.calls.append((len(state.history), state.progress and state.progress.steps))

    def log_epoch(self, measures, usage):
        assert measures["epoch"] == usage.epoch and usage.seconds > 0 < usage.peak_memory
        self.calls.append("logged")

    def finish(self):
        self.calls.append("finished")


def test_the_loop_needs_no_run_folder(train) -> None:
    checkpointer = InMemory()
    objective, history, folder = train("memory", replace(PLAN, epochs=2), checkpointer=checkpointer)
    other, again, _ = train("files", replace(PLAN, epochs=2))
    assert history == again and not folder.exists()
    assert_same(objective.state_dict(), other.state_dict())
    assert checkpointer.calls == [(0, 2), (1, None), "logged", (1, 2), (2, None), "logged", "finished"]
    assert not [name for name in imported_with("training.engine", ROOT) if name.startswith("training.run")]


class StopsInSecondEpoch(CrossEntropy):
    steps = 0

    def forward(self, batch):
        self.steps += 1
        if self.steps == 6:  # four steps an epoch
            raise StoppedError
        return super().forward(batch)


@pytest.mark.parametrize("optimizer", [PLAN.optimizer, Optimizer(name="adam", lr=0.001, schedule="cosine")])
def test_resumed_training_is_bit_identical(train, optimizer) -> None:
    plan = replace(PLAN, optimizer=optimizer)
    whole, history, folder = train("whole", plan)
    with pytest.raises(StoppedError):
        train("stopped", plan, StopsInSecondEpoch)
    resumed, again, other = train("stopped", plan)
    assert_same(whole.state_dict(), resumed.state_dict())
    assert history == again
    assert (folder / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
    one, two = (torch.load(path / "checkpoint.pt", weights_only=True) for path in (folder, other))
    torch.testing.assert_close(one["optimizer"], two["optimizer"], rtol=0, atol=0)
    assert one["schedule"]["last_epoch"] == two["schedule"]["last_epoch"] == 12


class Explodes(CrossEntropy):
    steps = 0

    def forward(self, batch):
        self.steps += 1
        terms = super().forward(batch)
        factor = float("nan") if self.steps > 4 else 1.0
        return terms | {"ce": Term(terms["ce"].value * factor, 1.0)}


def test_divergence_keeps_the_last_good_checkpoint(train, tmp_path) -> None:
    with pytest.raises(UserError, match=r"^bad diverged in epoch 2, step 1 of 4: ce became nan .*optimizer\.lr"):
        train("bad", kind=Explodes)
    state = torch.load(tmp_path / "bad" / "checkpoint.pt", weights_only=True)
    assert len(state["history"]) == 1
    assert all(torch.isfinite(value).all() for value in state["objective"].values() if torch.is_tensor(value))
    assert len((tmp_path / "bad" / "metrics.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("settings", "expected"),  # 4 epochs of 10 steps, peak 0.1; (step, rate)
    [
        ({"schedule": "constant"}, {0: 0.1, 20: 0.1, 39: 0.1}),
        ({"schedule": "exponential", "gamma": 0.9}, {0: 0.1, 10: 0.09, 20: 0.081, 40: 0.06561}),
        ({"schedule": "cosine"}, {0: 0.1, 10: 0.1 * (2 + 2**0.5) / 4, 20: 0.05, 40: 0.0}),
        (
            {"schedule": "multistep", "gamma": 0.1, "milestones": [0.5, 0.75]},
            {0: 0.1, 19: 0.1, 20: 0.01, 29: 0.01, 30: 0.001, 39: 0.001},
        ),
        ({"schedule": "onecycle"}, {0: 0.004, 11: 0.1, 39: 0.004 / 1e4}),  # 30 % up, then down to nothing
    ],
)
def test_schedules_follow_their_closed_forms(settings, expected) -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    schedule = make_schedule(optimizer, Optimizer(lr=0.1, **settings), epochs=4, steps=10)
    rates = []
    for _ in range(41):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(rates) <= 40:
            schedule.step()
    for step, rate in expected.items():
        assert rates[step] == pytest.approx(rate, rel=1e-6, abs=1e-9), step
    assert max(rates) == pytest.approx(0.1)


def test_two_groups_keep_their_ratio_under_onecycle() -> None:
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in (0.1, 0.001)]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    schedule = make_schedule(optimizer, Optimizer(schedule="onecycle"), epochs=1, steps=20)
    for _ in range(20):
        first, second = (group["lr"] for group in optimizer.param_groups)
        assert first == pytest.approx(100 * second)
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize(
    ("measures", "candidates", "chosen"),
    [
        ([{"val_top1": 0.5, "test_top1": 0.9}, {"val_top1": 0.7, "test_top1": 0.1}, {"val_top1": 0.7}], 0, 1),
        ([{"test_top1": 0.9}, {"test_top1": 0.5}, {"test_top1": 0.1}], 0, 2),
        ([{"val_top1": 0.9}, {"val_top1": 0.7}, {"val_top1": 0.6}], 2, 1),
    ],
    ids=["validation", "test alone", "last candidates"],
)
def test_only_validation_chooses_the_epoch(train, measures, candidates, chosen) -> None:
    class Scripted(CrossEntropy):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.weights = []

        def measure(self):
            self.weights.append(self.model[0].weight.detach().clone())
            return measures[len(self.weights) - 1]

    trained, _, _ = train("scripted", replace(PLAN, candidates=candidates), Scripted)
    assert torch.equal(trained.model[0].weight, trained.weights[chosen])
    assert not torch.equal(trained.weights[0], trained.weights[2])


def test_plans_choose_order_views_and_end(train) -> None:
    seen = []

    class Watching(CrossEntropy):
        def forward(self, batch):
            seen.append((batch.view, batch.indices.tolist()))
            return super().forward(batch)

    train("whole", PLAN, Watching)
    whole, seen = seen, []
    train("rest", replace(PLAN, epochs=1, first_epoch=2), Watching)  # a later stage
    assert seen == [batch for batch in whole if batch[0] == 2]
    seen = []
    plan = replace(PLAN, epochs=9, first_epoch=3, views=4, early_stopping=lambda history: len(history) == 3)
    _, history, folder = train("short", plan, Watching)
    views = [view for view, _ in seen]
    assert len(history) == 3 and sorted(set(views), key=views.index) == [3, 0, 1]
    assert [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()] == history


class Two(Objective):
    def __init__(self):
        super().__init__()
        self.x = nn.Parameter(torch.tensor([1.0, 2.0]))

    def forward(self, batch):
        return {
            "square": Term((self.x**2).sum(), 0.5),
            "sum": Term(self.x.sum(), 3.0),
            "cube": Term((self.x**3).sum()),  # reported, not minimised
        }


def test_a_step_descends_the_weighted_terms(make_experiment) -> None:
    objective = Two()
    groups, settings = objective.make_parameter_groups(0.1), Optimizer(lr=0.1, momentum=0, weight_decay=0)
    machine = make_experiment().machine
    stepper = make_stepper(objective, groups, settings, 1, 1, machine)
    values = train_step(objective, [None], stepper, machine)
    assert {name: value.item() for name, value in values.items()} == {
        "loss": 0.5 * 5 + 3 * 3,
        "square": 5,
        "sum": 3,
        "cube": 9,
    }
    assert objective.x.grad.tolist() == [1 + 3, 2 + 3]
    torch.testing.assert_close(objective.x.detach(), torch.tensor([1 - 0.4, 2 - 0.5]))


def test_evaluation_agrees_with_sklearn(make_experiment) -> None:
    experiment = make_experiment()
    model = experiment.build_student(0).train()
    before = copy_tensors(model)
    measures = evaluate(model, experiment.data.test, experiment.machine, "test")
    logits = predict(model, experiment.data.test, experiment.machine)
    labels = experiment.data.test.labels.numpy()
    probabilities = F.softmax(logits.double(), dim=1).numpy()
    assert measures["test_top1"] == pytest.approx(accuracy_score(labels, probabilities.argmax(1)))
    assert measures["test_loss"] == pytest.approx(log_loss(labels, probabilities, labels=range(4)), rel=1e-5)
    assert model.training
    assert_same(before, model.state_dict())
    assert measure_logits(logits, experiment.data.test.labels, "test") == measures
    assert compute_top1(logits, experiment.data.test.labels).item() == measures["test_top1"]


def test_held_out_images_are_measured_too(make_experiment) -> None:
    for fraction, splits in ((0, ("test",)), (0.25, ("val", "test"))):
        experiment = make_experiment(f"data.val_fraction={fraction}")
        measures = evaluate_splits(experiment.build_student(0), experiment.data, experiment.machine)
        assert set(measures) == {f"{split}_{kind}" for split in splits for kind in ("top1", "loss")}


@pytest.mark.parametrize(
    ("of", "message"), [("measures", "test_loss became nan"), ("weights", "is no longer finite")]
)
def test_divergence_in_the_last_step_is_found(train, tmp_path, of, message) -> None:
    class Diverging(CrossEntropy):  # its terms are finite throughout
        def measure(self):
            if of == "measures":
                return {"test_loss": float("nan")}
            with torch.no_grad():
                self.model[-1].bias[0] = torch.inf
            return {}

    with pytest.raises(UserError, match=message):
        train("bad", kind=Diverging)
    assert not (tmp_path / "bad").exists()
