from __future__ import annotations

import dataclasses
import io
import json
import time
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diagnostics.cost import Cost, Latency, compute_cost_ratio, measure_costs


def measure_one(model: nn.Module, shape: tuple[int, int, int], **options: Any) -> Cost:
    return measure_costs([model], shape, **options)[0]


def make_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )


class Slow(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        time.sleep(0.02)
        return x


def test_parameters_flops_and_bytes_by_hand() -> None:
    net = make_net()
    cost = measure_one(net, (3, 16, 16), seconds=0.0)
    assert cost.parameters == 3 * 8 * 9 + 2 * 8 + 8 * 5 + 5
    assert cost.flops == 2 * (3 * 9) * 8 * 16 * 16 + 2 * 8 * 5  # a multiply-add is 2
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    assert cost.state_bytes == len(file.getvalue())
    json.dumps(dataclasses.asdict(cost), allow_nan=False)


def test_flops_are_of_one_image_whatever_the_batches() -> None:
    costs = [measure_one(make_net(), (3, 8, 8), batches=b, seconds=0.0) for b in ((1,), (4, 32))]
    assert costs[0].flops == costs[1].flops
    assert [item.batch for item in costs[1].latencies] == [4, 32]


def test_attention_counts_as_its_matrix_products() -> None:
    """Of 17 tokens, 32 wide: query, key, value and output, attention, two layers of 64; fused in evaluation."""
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    expected = 2 * 17 * (4 * 32 * 32 + 2 * 17 * 32 + 2 * 32 * 64)
    assert measure_one(layer, (17, 32), seconds=0.0).flops == expected
    assert torch.backends.mha.get_fastpath_enabled()


def test_shared_parameters_count_once() -> None:
    layer = nn.Linear(4, 4)
    assert measure_one(nn.Sequential(layer, layer), (3, 4, 4), seconds=0.0).parameters == 20


def test_latency_and_throughput_of_a_known_time() -> None:
    cost = measure_one(Slow(), (3, 2, 2), batches=(1, 8), seconds=0.2)
    one, eight = cost.latencies
    assert 20 <= one.median_ms < 500
    assert one.repeats >= 5
    assert one.iqr_ms >= 0
    assert eight.images_per_second == pytest.approx(8 / (eight.median_ms / 1000))


def test_slow_model_gets_five_repeats() -> None:
    start = time.perf_counter()
    cost = measure_one(Slow(), (3, 2, 2), batches=(1,), seconds=0.01)
    assert cost.latencies[0].repeats == 5
    assert time.perf_counter() - start < 10


def test_the_model_itself_is_left_as_it_was() -> None:
    net = make_net().train()
    net[1].eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    measure_one(net, (3, 8, 8), seconds=0.0)
    assert [m.training for m in net.children()] == [True, False, True, True, True, True]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


def make_cost(parameters: int, median_ms: float, device: str = "cpu", batch: int = 1) -> Cost:
    return Cost(parameters, 100, 50, [Latency(batch, 5, median_ms, 0.1, 1000 / median_ms)], device, 2)


def test_ratio_by_hand() -> None:
    ratio = compute_cost_ratio(make_cost(10, 2.0), make_cost(40, 8.0))
    assert (ratio.parameters, ratio.flops, ratio.state_bytes, ratio.latency) == (0.25, 1.0, 1.0, {"1": 0.25})
    assert ratio.notes == {}
    assert compute_cost_ratio(make_cost(10, 2.0), make_cost(40, 8.0, batch=128)).latency == {}


def test_ratios_that_are_not_defined() -> None:
    ratio = compute_cost_ratio(make_cost(10, 2.0, "cuda"), make_cost(0, 8.0))
    assert (ratio.parameters, ratio.latency) == (None, {"1": None})
    assert set(ratio.notes) == {"parameters", "latency"}


def test_wrong_input_is_named() -> None:
    with pytest.raises(ValueError, match="batches"):
        measure_one(make_net(), (3, 8, 8), batches=(0,))


def test_models_take_turns() -> None:
    order: list[str] = []

    class Noting(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            order.append(self.name)
            return x.sum(dim=(1, 2, 3))

    costs = measure_costs([Noting("a"), Noting("b")], (3, 2, 2), batches=(1,), seconds=0.0)
    assert order[:12] == ["a", "b"] * 6  # one of warm-up and five of each
    assert [cost.latencies[0].repeats for cost in costs] == [5, 5]
    assert measure_costs([], (3, 2, 2)) == []
