"""Training that diverges, and goes on at a smaller rate. Of training/divergence.py, and training/rates.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR

from errors import UserError
from models.checkpoint import load
from settings.reading import load_config
from settings.schema import Config
from settings.stages import Optimizer
from training.divergence import (
    DivergedError,
    TrainingLocation,
    refuse_divergence,
    refuse_infinite,
    report_divergence,
)
from training.job_name import TEACHER, JobName, list_method_jobs
from training.optimizers import make_schedule
from training.progress import EpochProgress
from training.rates import has_only_rate_changes, rescale_rates
from training.stage import StageObjective
from training.stepping import Stepper

KEY = "methods.two_stage.stage1.optimizer.lr"
PLACE = TrainingLocation(Path("runs/tiny/seed0/two_stage/stage1"), KEY, 3, 0.2, steps=80, low_precision=False)


def make_steps(*rows):
    return [
        (0.1 * (number + 1), {name: torch.tensor(v) for name, v in row.items()}) for number, row in enumerate(rows)
    ]


def test_first_bad_step_term_and_rate_are_named() -> None:
    fine, bad = {"loss": 1.0, "ce": 1.0, "kl": 0.0}, {"loss": float("nan"), "ce": 1.0, "kl": float("inf")}
    refuse_divergence(make_steps(fine, fine), 52)
    refuse_divergence([], 0)
    with pytest.raises(UserError) as caught, report_divergence(PLACE, EpochProgress(rate=0.2)):
        refuse_divergence(make_steps(fine, bad, bad), 53)
    assert str(caught.value) == (
        "stage1 diverged in epoch 3, step 52 of 80: kl became inf at a learning rate of 0.2; epoch 2 is kept in "
        f"runs/tiny/seed0/two_stage/stage1: go on with --resume --set {KEY}=VALUE, a smaller one"
    )


@pytest.mark.parametrize(
    ("place", "step", "advice"),
    [
        (PLACE, 1, "a smaller one"),
        (TrainingLocation(*list(vars(PLACE).values())[:-1], low_precision=True), 1, "precision=float32"),
        (TrainingLocation(PLACE.job, PLACE.rate_key, 1, 0.2, 80, False), 1, "no step was made yet"),
        (TrainingLocation(PLACE.job, PLACE.rate_key, 1, 0.2, 80, False), 2, "a smaller one"),
    ],
)
def test_advice_fits_the_cause(place, step, advice) -> None:
    with pytest.raises(UserError, match=advice) as caught, report_divergence(place, EpochProgress(rate=0.2)):
        raise DivergedError("ce became nan", step, 0.1)
    assert ("float32" in str(caught.value)) == place.low_precision


def test_weights_and_statistics_must_be_finite() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    stepper = Stepper(optimizer, ExponentialLR(optimizer, 0.9))
    model(torch.randn(4, 2)).sum().backward()
    optimizer.step()
    refuse_infinite({"top1": 0.5}, model, stepper)
    with pytest.raises(DivergedError, match="test_loss became nan"):
        refuse_infinite({"test_loss": float("nan")}, model, stepper)
    momentum = next(iter(optimizer.state.values()))["momentum_buffer"]
    for tensor, name in (
        (model[0].weight, "0.weight"),
        (model[1].running_var, "1.running_var"),
        (momentum, "momentum"),
    ):
        kept = tensor.detach().clone()
        with torch.no_grad():
            tensor.view(-1)[0] = torch.inf
            with pytest.raises(DivergedError, match=name):
                refuse_infinite({}, model, stepper)
            tensor.copy_(kept)


@pytest.mark.parametrize("warmup", [0, 0.5])
@pytest.mark.parametrize("name", ["constant", "exponential", "cosine", "multistep", "onecycle"])
def test_changed_rate_keeps_the_schedule(name, warmup) -> None:
    warmup = 0 if name == "onecycle" else warmup

    def make(rate):
        groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": one} for one in (rate, 1e-3)]
        optimizer = torch.optim.SGD(groups, lr=rate)
        return optimizer, make_schedule(optimizer, Optimizer(schedule=name, warmup=warmup), epochs=2, steps=6)

    def list_rates(optimizer, schedule, count):
        found = []
        for _ in range(count):
            found.append([group["lr"] for group in optimizer.param_groups])
            optimizer.step()
            schedule.step()
        return found

    (old, old_schedule), (new, new_schedule) = make(0.1), make(0.02)
    whole = list_rates(*make(0.02), 12)  # type: ignore[call-arg]
    list_rates(old, old_schedule, 5)
    wanted = [group["initial_lr"] for group in new.param_groups]
    new.load_state_dict(old.state_dict())
    new_schedule.load_state_dict(old_schedule.state_dict())
    rescale_rates(new, new_schedule, wanted)
    torch.testing.assert_close(torch.tensor(list_rates(new, new_schedule, 7)), torch.tensor(whole[5:]))


def test_only_rates_of_unfinished_jobs_may_change(tiny_config) -> None:
    def read(*settings) -> Config:
        return load_config(tiny_config, settings)

    first, second = (JobName("two_stage", 0, number) for number in (1, 2))
    lower = f"{KEY}=0.001"
    assert has_only_rate_changes(read(), read(lower), [TEACHER])
    assert not has_only_rate_changes(read(), read(lower), [TEACHER, first])
    assert not has_only_rate_changes(read(), read(lower, "training.epochs=3"), [TEACHER])
    assert not has_only_rate_changes(read(), read("teacher.optimizer.lr=0.001"), [TEACHER])
    assert has_only_rate_changes(read(), read("teacher.optimizer.lr=0.001"), [])
    later = read("methods.two_stage.stage2.feature_lr=1e-6", "seeds=[0,1]")
    assert has_only_rate_changes(read(), later, [TEACHER, first])
    assert not has_only_rate_changes(read(), later, [TEACHER, first, second])
    assert has_only_rate_changes(read(), read("training.optimizer.lr=0.04"), [TEACHER, first, second])
    assert not has_only_rate_changes(read(), read("training.optimizer.lr=0.04"), [TEACHER, JobName("kd", 0)])


def test_rates_may_not_part_shared_stages(tiny_config) -> None:
    def read(*settings) -> Config:
        return load_config(tiny_config, ["methods.v={base: two_stage, stage2: {train: head}}", *settings])

    assert list_method_jobs(read(), "v", 0) == [JobName("two_stage", 0, 1), JobName("v", 0, 2)]
    assert not has_only_rate_changes(read(), read("methods.v.stage1.optimizer.lr=0.1"), [TEACHER])
    assert has_only_rate_changes(read(), read("methods.v.stage2.optimizer.lr=0.1"), [TEACHER])
    assert has_only_rate_changes(read(), read(f"{KEY}=0.1"), [TEACHER])


def test_diverged_run_goes_on_at_a_smaller_rate(workspace, monkeypatch) -> None:
    forward, seen = StageObjective.forward, []

    def explode(self, batch):
        terms = forward(self, batch)
        seen.append(batch)
        return {
            name: type(one)(one.value * (torch.inf if len(seen) > 7 else 1), one.weight)
            for name, one in terms.items()
        }

    words = ("--phase", "teacher", "--set", "name=diverged", "teacher.epochs=4")
    folder = workspace.runs / "diverged" / "teacher"
    with monkeypatch.context() as patch:
        patch.setattr(StageObjective, "forward", explode)
        done = workspace.train(*words, "teacher.optimizer.lr=0.05")
    done.check_line("teacher diverged in epoch 3, step 2 of 3: ce became inf")
    assert len(load(folder / "checkpoint.pt")["history"]) == 2 and not (folder / "result.json").exists()
    smaller = (*words, "teacher.optimizer.lr=0.01")
    workspace.train(*words, "teacher.optimizer.lr=0.05").check_line("is unfinished")
    workspace.train(*smaller).check_line("other values of teacher.optimizer.lr")
    workspace.train(*smaller, "losses.crd.dim=9", "--resume").check_line("other values of")
    done = workspace.train(*smaller, "--resume")
    assert done.code == 0 and "0.2 times the learning rate" in done.err
    assert load_config(folder.parent / "config.yaml").teacher.optimizer.lr == 0.01
    rates = [json.loads(line)["learning_rate"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(rates) == 4 and rates[2] < rates[1] / 4
    workspace.train(*words, "teacher.optimizer.lr=0.05", "--resume").check_line("other values of")
