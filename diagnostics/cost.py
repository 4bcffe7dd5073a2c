"""What a model costs to store and to run: parameters, FLOPs, bytes, latency.

Letters: B batch, H and W height and width in pixels.
"""

from __future__ import annotations

import copy
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

MIN_REPEATS = 5


@dataclass(frozen=True)
class Latency:
    """Time of one forward pass of a batch, after warm-up."""

    batch: int
    repeats: int
    median_ms: float
    iqr_ms: float  # 75th minus 25th percentile
    images_per_second: float  # batch / median


@dataclass(frozen=True)
class Cost:
    """What `model_cost` measures."""

    parameters: int
    flops: int  # of one image; a multiply-add is two
    state_bytes: int  # the state dict as torch.save writes it
    latencies: list[Latency]
    device: str
    threads: int  # of torch on the CPU


@dataclass(frozen=True)
class CostRatio:
    """A cost divided by a reference's: below 1 is cheaper. None where not defined, `notes` says why."""

    parameters: float | None
    flops: float | None
    state_bytes: float | None
    latency: dict[str, float | None]  # of the medians, by batch size
    notes: dict[str, str]


def model_cost(
    model: nn.Module,
    input_shape: Sequence[int],
    device: torch.device | str = "cpu",
    batches: Sequence[int] = (1, 128),
    seconds: float = 1.5,
) -> Cost:
    """Cost of a model in evaluation mode on random images of `input_shape` (3, H, W).

    A copy is measured, so the model itself keeps its device and its mode. Parameters that two layers share
    count once. FLOPs are those PyTorch's counter knows, convolutions and matrix products, with a multiply-add
    as 2 (papers that say "MACs" or count it as 1 show half); normalisation, activations and pooling are not
    counted. A batch size takes about `seconds`, or 5 passes after one of warm-up where these are slower.

    Raises
    ------
    ValueError : no or non-positive batch sizes, a negative time.
    """
    if not batches or min(batches) < 1 or seconds < 0:
        raise ValueError(f"need batches of 1 or more, seconds of 0 or more, got {list(batches)}, {seconds}")
    model = copy.deepcopy(model).to(device).eval()
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(max(batches), *input_shape, generator=generator).to(device)  # (B, 3, H, W)
    with torch.no_grad():
        with FlopCounterMode(display=False) as counter:
            model(images[:1])
        latencies = [_latency(model, images[:batch], seconds) for batch in batches]
    return Cost(
        parameters=sum(p.numel() for p in model.parameters()),
        flops=int(counter.get_total_flops()),
        state_bytes=buffer.tell(),
        latencies=latencies,
        device=str(device),
        threads=torch.get_num_threads(),
    )


def ratio_to(cost: Cost, reference: Cost) -> CostRatio:
    """Each number of `cost` divided by the reference's; latencies for the batch sizes that both have.

    Latencies measured on different devices, or with different numbers of CPU threads, are not compared.
    """
    notes: dict[str, str] = {}

    def ratio(name: str) -> float | None:
        if getattr(reference, name) == 0:
            notes[name] = "The reference has none."
            return None
        return float(getattr(cost, name) / getattr(reference, name))

    medians = {item.batch: item.median_ms for item in reference.latencies}
    latency: dict[str, float | None] = {
        str(item.batch): item.median_ms / medians[item.batch] for item in cost.latencies if item.batch in medians
    }
    if (cost.device, cost.threads) != (reference.device, reference.threads):
        latency = dict.fromkeys(latency)
        notes["latency"] = "The two were timed on different devices or numbers of threads."
    return CostRatio(ratio("parameters"), ratio("flops"), ratio("state_bytes"), latency, notes)


def _latency(model: nn.Module, images: torch.Tensor, seconds: float) -> Latency:
    _seconds_each(lambda: model(images), images.device, budget=seconds / 5, at_least=1)  # warm-up
    times = _seconds_each(lambda: model(images), images.device, budget=seconds * 4 / 5, at_least=MIN_REPEATS)
    low, median, high = (float(q) for q in np.percentile(times, [25, 50, 75]))
    return Latency(
        batch=len(images),
        repeats=len(times),
        median_ms=1000 * median,
        iqr_ms=1000 * (high - low),
        images_per_second=len(images) / median,
    )


def _seconds_each(run: Callable[[], object], device: torch.device, budget: float, at_least: int) -> list[float]:
    times: list[float] = []
    end = time.perf_counter() + budget
    while len(times) < at_least or time.perf_counter() < end:
        _synchronise(device)
        start = time.perf_counter()
        run()
        _synchronise(device)  # a GPU returns before it has finished
        times.append(time.perf_counter() - start)
    return times


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
