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
from tests.faults.short_run import SHORT
from training.divergence import DivergedError, Place, refuse_divergence, refuse_infinite, told_where
from training.job_name import TEACHER, JobName, jobs_of_method
from training.optimizers import make_schedule
from training.progress import Part
from training.rates import differ_in_rates_only, rescale_rates
from training.stage import StageObjective
from training.stepping import Stepper

KEY = "methods.two_stage.stage1.optimizer.lr"
PLACE = Place(Path("runs/tiny/seed0/two_stage/stage1"), KEY, 3, 0.2, steps=80, low_precision=False)


def steps(*rows):
    return [
        (0.1 * (number + 1), {name: torch.tensor(v) for name, v in row.items()}) for number, row in enumerate(rows)
    ]


def test_the_first_bad_step_and_its_term_are_named_with_the_rate_of_that_step():
    fine, bad = {"loss": 1.0, "ce": 1.0, "kl": 0.0}, {"loss": float("nan"), "ce": 1.0, "kl": float("inf")}
    refuse_divergence(steps(fine, fine), 52)
    refuse_divergence([], 0)
    with pytest.raises(UserError) as caught, told_where(PLACE, Part(rate=0.2)):
        refuse_divergence(steps(fine, bad, bad), 53)
    assert str(caught.value) == (
        "stage1 diverged in epoch 3, step 52 of 80: kl became inf at a learning rate of 0.2; epoch 2 is kept in "
        f"runs/tiny/seed0/two_stage/stage1: go on with --resume --set {KEY}=VALUE, a smaller one"
    )


@pytest.mark.parametrize(
    ("place", "step", "advice"),
    [
        (PLACE, 1, "a smaller one"),
        (Place(*list(vars(PLACE).values())[:-1], low_precision=True), 1, "precision=float32"),
        (Place(PLACE.job, PLACE.rate_key, 1, 0.2, 80, False), 1, "no step was made yet"),
        (Place(PLACE.job, PLACE.rate_key, 1, 0.2, 80, False), 2, "a smaller one"),
    ],
)
def test_advice_fits_the_cause(place, step, advice):
    with pytest.raises(UserError, match=advice) as caught, told_where(place, Part(rate=0.2)):
        raise DivergedError("ce became nan", step, 0.1)
    assert ("float32" in str(caught.value)) == place.low_precision


def test_weights_statistics_measures_and_momenta_that_are_not_finite_are_found():
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
def test_a_changed_rate_goes_on_along_the_same_schedule(name, warmup):
    warmup = 0 if name == "onecycle" else warmup

    def made(rate):
        groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": one} for one in (rate, 1e-3)]
        optimizer = torch.optim.SGD(groups, lr=rate)
        return optimizer, make_schedule(optimizer, Optimizer(schedule=name, warmup=warmup), epochs=2, steps=6)

    def rates(optimizer, schedule, count):
        found = []
        for _ in range(count):
            found.append([group["lr"] for group in optimizer.param_groups])
            optimizer.step()
            schedule.step()
        return found

    (old, old_schedule), (new, new_schedule) = made(0.1), made(0.02)
    whole = rates(*made(0.02), 12)
    rates(old, old_schedule, 5)
    wanted = [group["initial_lr"] for group in new.param_groups]
    new.load_state_dict(old.state_dict())
    new_schedule.load_state_dict(old_schedule.state_dict())
    rescale_rates(new, new_schedule, wanted)
    torch.testing.assert_close(torch.tensor(rates(new, new_schedule, 7)), torch.tensor(whole[5:]))


def test_only_rates_of_jobs_that_are_not_finished_may_change(tiny_config):
    def made(*settings) -> Config:
        return load_config(tiny_config, settings)

    first, second = (JobName("two_stage", 0, number) for number in (1, 2))
    lower = f"{KEY}=0.001"
    assert differ_in_rates_only(made(), made(lower), [TEACHER])
    assert not differ_in_rates_only(made(), made(lower), [TEACHER, first])
    assert not differ_in_rates_only(made(), made(lower, "training.epochs=3"), [TEACHER])
    assert not differ_in_rates_only(made(), made("teacher.optimizer.lr=0.001"), [TEACHER])
    assert differ_in_rates_only(made(), made("teacher.optimizer.lr=0.001"), [])
    later = made("methods.two_stage.stage2.feature_lr=1e-6", "seeds=[0,1]")
    assert differ_in_rates_only(made(), later, [TEACHER, first])
    assert not differ_in_rates_only(made(), later, [TEACHER, first, second])
    assert differ_in_rates_only(made(), made("training.optimizer.lr=0.04"), [TEACHER, first, second])
    assert not differ_in_rates_only(made(), made("training.optimizer.lr=0.04"), [TEACHER, JobName("kd", 0)])


def test_another_rate_may_not_part_methods_that_share_a_stage(tiny_config):
    def made(*settings) -> Config:
        return load_config(tiny_config, ["methods.v={base: two_stage, stage2: {train: head}}", *settings])

    assert jobs_of_method(made(), "v", 0) == [JobName("two_stage", 0, 1), JobName("v", 0, 2)]
    assert not differ_in_rates_only(made(), made("methods.v.stage1.optimizer.lr=0.1"), [TEACHER])
    assert differ_in_rates_only(made(), made("methods.v.stage2.optimizer.lr=0.1"), [TEACHER])
    assert differ_in_rates_only(made(), made(f"{KEY}=0.1"), [TEACHER])


def test_a_diverged_run_goes_on_from_its_last_good_epoch_at_a_smaller_rate(call_main, tmp_path, monkeypatch):
    forward, seen = StageObjective.forward, []

    def exploding(self, batch):
        terms = forward(self, batch)
        seen.append(batch)
        return {
            name: type(one)(one.value * (torch.inf if len(seen) > 9 else 1), one.weight)
            for name, one in terms.items()
        }

    words = ("--phase", "teacher", "--quiet", "--set", *SHORT, "teacher.epochs=4")
    folder = tmp_path / "tiny" / "teacher"
    with monkeypatch.context() as patch:
        patch.setattr(StageObjective, "forward", exploding)
        done = call_main(tmp_path, *words, "teacher.optimizer.lr=0.05")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "teacher diverged in epoch 3, step 2 of 4: ce became inf" in done.stderr
    assert len(load(folder / "checkpoint.pt")["history"]) == 2 and not (folder / "result.json").exists()
    smaller = (*words, "teacher.optimizer.lr=0.01")
    assert "is unfinished" in call_main(tmp_path, *words, "teacher.optimizer.lr=0.05").stderr
    assert "other values of teacher.optimizer.lr" in call_main(tmp_path, *smaller).stderr
    assert "other values of" in call_main(tmp_path, *smaller, "losses.crd.dim=9", "--resume").stderr
    done = call_main(tmp_path, *smaller, "--resume")
    assert done.returncode == 0 and "0.2 times the learning rate" in done.stderr
    assert load_config(folder.parent / "config.yaml").teacher.optimizer.lr == 0.01
    rates = [json.loads(line)["learning_rate"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(rates) == 4 and rates[2] < rates[1] / 4
    assert "other values of" in call_main(tmp_path, *words, "teacher.optimizer.lr=0.05", "--resume").stderr
