from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from settings.stages import Optimizer
from training.optimizers import make_optimizer, make_schedule


def make_groups(model, lr=0.1):
    return [{"params": list(model.parameters()), "lr": lr}]


def test_biases_and_norms_may_go_without_decay() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    settings = Optimizer(name="adamw", decay_norms=False, weight_decay=0.1)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decays = {
        names[id(parameter)]: group["weight_decay"]
        for group in make_optimizer(make_groups(model), settings).param_groups
        for parameter in group["params"]
    }
    wanted = {"0.weight": 0.1, "0.bias": 0, "1.weight": 0, "1.bias": 0, "3.weight": 0.1, "3.bias": 0}
    assert decays == wanted
    everything = make_optimizer(make_groups(model), Optimizer(weight_decay=0.1)).param_groups
    assert [group["weight_decay"] for group in everything] == [0.1]


def test_adamw_decays_apart_from_the_gradient() -> None:
    weight = nn.Parameter(torch.tensor([2.0, -3.0], dtype=torch.float64))
    settings = Optimizer(name="adamw", lr=0.1, weight_decay=0.5)
    optimizer = make_optimizer([{"params": [weight], "lr": 0.1}], settings)
    weight.grad = torch.tensor([4.0, -0.01], dtype=torch.float64)
    optimizer.step()
    # Loshchilov & Hutter, algorithm 2, first step: w(1 - lr * decay) - lr * sign of the gradient, up to epsilon
    wanted = torch.tensor([2 * 0.95 - 0.1, -3 * 0.95 + 0.1], dtype=torch.float64)
    torch.testing.assert_close(weight.detach(), wanted, rtol=1e-5, atol=1e-7)


def test_clipping_scales_all_gradients_together() -> None:
    one, two = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(2))
    settings = Optimizer(lr=1.0, momentum=0, weight_decay=0, clip_norm=1.5)
    optimizer = make_optimizer([{"params": [one, two], "lr": 1.0}], settings)
    one.grad, two.grad = torch.tensor([3.0]), torch.tensor([0.0, 4.0])  # norm 5
    optimizer.step()
    torch.testing.assert_close(torch.cat([one, two]).detach(), torch.tensor([-0.9, 0.0, -1.2]))
    one.grad, two.grad = torch.tensor([0.1]), torch.zeros(2)  # below it nothing is scaled
    optimizer.step()
    assert one.item() == pytest.approx(-1.0)


def test_a_warm_up_comes_before_the_schedule() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = make_schedule(optimizer, Optimizer(lr=0.1, warmup=1), epochs=3, steps=4)
    rates = []
    for _ in range(12):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    cosine = [0.05 * (1 + math.cos(math.pi * step / 8)) for step in range(8)]
    assert rates == pytest.approx([0.02, 0.04, 0.06, 0.08, *cosine])


@pytest.mark.parametrize(("milestones", "drops"), [([0.5, 3], [6, 9]), ([0.1, 2], [3, 6])])
def test_milestones_after_a_warm_up_count_from_the_beginning(milestones, drops) -> None:
    """Of 4 epochs x 3 steps; one within the warm-up of an epoch takes effect at its end."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    settings = Optimizer(lr=0.1, warmup=1, schedule="multistep", milestones=milestones, gamma=0.1)
    schedule = make_schedule(optimizer, settings, epochs=4, steps=3)
    rates = []
    for _ in range(12):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[3:] == pytest.approx([0.1 * 0.1 ** sum(drop <= step for drop in drops) for step in range(3, 12)])


def test_onecycle_has_its_own_warm_up() -> None:
    with pytest.raises(ValidationError, match="warm-up of its own"):
        Optimizer(schedule="onecycle", warmup=1)
