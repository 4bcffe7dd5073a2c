"""Of training/engine.py, and training/evaluation.py, training/run/job_folder.py."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import accuracy_score, log_loss
from torch import nn

from errors import UserError
from settings.stages import Optimizer
from tests.training.cross_entropy import CrossEntropy, assert_same, copy_tensors
from training.engine import Objective, Plan, Term, fit, seed_everything
from training.evaluation import compute_top1, evaluate, evaluate_splits, predict, score
from training.optimizers import make_schedule
from training.run.job_folder import JobFolder
from training.stepping import make_stepper, train_step

PLAN = Plan(epochs=3, batch_size=16, optimizer=Optimizer(lr=0.02, nesterov=True, schedule="onecycle"), seed=3)


class StoppedError(Exception):
    """Stands for a kill."""


@pytest.fixture
def train(make_experiment, tmp_path):
    """`train("name", plan)`: fit a small network with dropout, batch statistics and cross-entropy in a folder."""
    experiment = make_experiment()

    def run(name, plan=PLAN, kind=CrossEntropy):
        seed_everything(plan.seed)
        model = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2))
        objective = kind(model.append(nn.Linear(8 * 7 * 7, 4)), experiment.data, experiment.machine)
        folder = JobFolder(tmp_path / name)
        return objective, fit(objective, experiment.data, plan, experiment.machine, folder), folder

    return run


def test_one_seed_gives_one_result_and_another_seed_another(train):
    first, history, _ = train("first")
    second, again, _ = train("second")
    other, different, _ = train("other", replace(PLAN, seed=4))
    assert_same(first.state_dict(), second.state_dict())
    assert history == again and history != different
    assert not torch.equal(first.model[0].weight, other.model[0].weight)
    assert [measures["epoch"] for measures in history] == [1, 2, 3]
    assert set(history[0]) == {"epoch", "learning_rate", "loss", "ce", "top1", "test_top1", "test_loss"}


class StopsInSecondEpoch(CrossEntropy):
    steps = 0

    def forward(self, batch):
        self.steps += 1
        if self.steps == 6:  # four steps an epoch
            raise StoppedError
        return super().forward(batch)


@pytest.mark.parametrize("optimizer", [PLAN.optimizer, Optimizer(name="adam", lr=0.001, schedule="cosine")])
def test_resumed_training_is_bit_identical(train, optimizer):
    plan = replace(PLAN, optimizer=optimizer)
    whole, history, folder = train("whole", plan)
    with pytest.raises(StoppedError):
        train("stopped", plan, StopsInSecondEpoch)
    resumed, again, other = train("stopped", plan)
    assert_same(whole.state_dict(), resumed.state_dict())
    assert history == again
    assert (folder.path / "metrics.jsonl").read_bytes() == (other.path / "metrics.jsonl").read_bytes()
    states = [torch.load(f.path / "checkpoint.pt", weights_only=True) for f in (folder, other)]
    for number, state in states[0]["optimizer"]["state"].items():
        assert_same(
            {name: torch.as_tensor(value) for name, value in state.items() if value is not None},
            {
                name: torch.as_tensor(value)
                for name, value in states[1]["optimizer"]["state"][number].items()
                if value is not None
            },
        )
    assert states[0]["schedule"]["last_epoch"] == states[1]["schedule"]["last_epoch"] == 12


class Explodes(CrossEntropy):
    steps = 0

    def forward(self, batch):
        self.steps += 1
        terms = super().forward(batch)
        factor = float("nan") if self.steps > 4 else 1.0
        return terms | {"ce": Term(terms["ce"].value * factor, 1.0)}


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(train, tmp_path):
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
def test_schedules_follow_their_closed_forms(settings, expected):
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


def test_two_groups_keep_their_ratio_under_onecycle():
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in (0.1, 0.001)]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    schedule = make_schedule(optimizer, Optimizer(schedule="onecycle"), epochs=1, steps=20)
    for _ in range(20):
        first, second = (group["lr"] for group in optimizer.param_groups)
        assert first == pytest.approx(100 * second)
        optimizer.step()
        schedule.step()


class Scripted(CrossEntropy):
    """Measures what it is told; `weights` keeps what the network was after each epoch."""

    values: list[dict[str, float]]

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.weights = []

    def measure(self):
        self.weights.append(self.model[0].weight.detach().clone())
        return self.values[len(self.weights) - 1]


def test_validation_decides_which_epoch_remains_and_test_accuracy_never(train):
    class Validated(Scripted):
        values = [
            {"val_top1": 0.5, "test_top1": 0.9},
            {"val_top1": 0.7, "test_top1": 0.1},
            {"val_top1": 0.7, "test_top1": 0.8},
        ]

    class TestOnly(Scripted):
        values = [{"test_top1": 0.9}, {"test_top1": 0.5}, {"test_top1": 0.1}]

    validated, _, _ = train("validated", kind=Validated)
    assert torch.equal(validated.model[0].weight, validated.weights[1])
    last, _, _ = train("last", kind=TestOnly)
    assert torch.equal(last.model[0].weight, last.weights[2])
    assert not torch.equal(last.weights[2], last.weights[0])


def test_validation_decides_between_the_last_candidates_alone(train):
    class Early(Scripted):
        values = [{"val_top1": 0.9}, {"val_top1": 0.7}, {"val_top1": 0.6}]

    trained, _, _ = train("candidates", replace(PLAN, candidates=2), Early)
    assert torch.equal(trained.model[0].weight, trained.weights[1])


def test_a_later_stage_goes_on_with_the_order_and_the_views_of_one_training(train):
    seen = []

    class Watching(CrossEntropy):
        def forward(self, batch):
            seen.append((batch.view, batch.indices.tolist()))
            return super().forward(batch)

    train("whole", replace(PLAN, epochs=3), Watching)
    whole, seen = seen, []
    train("rest", replace(PLAN, epochs=1, first_epoch=2), Watching)
    assert seen == [batch for batch in whole if batch[0] == 2]


def test_a_plan_can_end_training_early_and_shows_its_views(train):
    views = []

    class Watching(CrossEntropy):
        def forward(self, batch):
            views.append(batch.view)
            return super().forward(batch)

    plan = replace(PLAN, epochs=9, first_epoch=3, views=4, ended=lambda history: len(history) == 3)
    _, history, folder = train("short", plan, Watching)
    assert len(history) == 3 and sorted(set(views), key=views.index) == [3, 0, 1]
    lines = [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]
    assert lines == history


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


def test_a_step_goes_down_the_weighted_sum_of_the_terms(make_experiment):
    objective = Two()
    groups, settings = objective.parameter_groups(0.1), Optimizer(lr=0.1, momentum=0, weight_decay=0)
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


def test_evaluation_agrees_with_sklearn_and_leaves_the_mode_alone(make_experiment):
    experiment = make_experiment()
    model = experiment.new_student(0).train()
    before = copy_tensors(model)
    measures = evaluate(model, experiment.data.test, experiment.machine, "test")
    logits = predict(model, experiment.data.test, experiment.machine)
    labels = experiment.data.test.labels.numpy()
    probabilities = F.softmax(logits.double(), dim=1).numpy()
    assert measures["test_top1"] == pytest.approx(accuracy_score(labels, probabilities.argmax(1)))
    assert measures["test_loss"] == pytest.approx(log_loss(labels, probabilities, labels=range(4)), rel=1e-5)
    assert model.training
    assert_same(before, model.state_dict())
    assert score(logits, experiment.data.test.labels, "test") == measures
    assert compute_top1(logits, experiment.data.test.labels).item() == measures["test_top1"]


def test_both_splits_are_measured_where_images_are_held_out(make_experiment):
    for fraction, splits in ((0, ("test",)), (0.25, ("val", "test"))):
        experiment = make_experiment(f"data.val_fraction={fraction}")
        measures = evaluate_splits(experiment.new_student(0), experiment.data, experiment.machine)
        assert set(measures) == {f"{split}_{kind}" for split in splits for kind in ("top1", "loss")}


class DivergesAtTheEnd(CrossEntropy):
    """Its terms are finite throughout; what it gives after the epoch is not."""

    def __init__(self, *arguments, of="measures"):
        super().__init__(*arguments)
        self.of = of

    def measure(self):
        if self.of == "weights":
            with torch.no_grad():
                self.model.fc.bias[0] = torch.inf
            return {}
        return {"test_loss": float("nan")}


@pytest.mark.parametrize(
    ("of", "said"), [("measures", "test_loss became nan"), ("weights", "is no longer finite")]
)
def test_a_network_that_diverged_in_its_last_step_is_not_done(make_experiment, tmp_path, of, said):
    # Before, NaN stood in metrics.jsonl and result.json, and the job counted as finished.
    experiment = make_experiment()
    objective = DivergesAtTheEnd(experiment.new_student(0), experiment.data, experiment.machine, of=of)
    folder = JobFolder(tmp_path / "job")
    with pytest.raises(UserError, match=said):
        fit(objective, experiment.data, Plan(1, 16, Optimizer(), seed=0), experiment.machine, folder)
    assert not (folder.path / "checkpoint.pt").exists() and not (folder.path / "metrics.jsonl").exists()
