"""Cost of a model to store and to run: parameters, FLOPs, bytes, latency.

Letters: B batch, H and W height and width in pixels.
"""

from __future__ import annotations

import copy
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from diagnostics.statistics import Noted

MIN_REPEATS = 5

ForwardPass = Callable[[torch.Tensor], object]  # a batch (B, ...) to its outputs


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
    """Parameters, FLOPs, bytes and latency of a model."""

    parameters: int  # those that two layers share count once
    flops: int  # of one image; a multiply-add is two
    state_bytes: int  # the state dict as torch.save writes it
    latencies: list[Latency]
    device: str
    threads: int  # of torch on the CPU


@dataclass(frozen=True)
class CostRatio(Noted):
    """A cost divided by a reference's: below 1 is cheaper. None where not defined, `notes` says why."""

    parameters: float | None
    flops: float | None
    state_bytes: float | None
    latency: dict[str, float | None]  # of the medians, by batch size
    notes: dict[str, str]


def measure_costs(
    models: Sequence[nn.Module],
    input_shape: Sequence[int],
    device: torch.device | str = "cpu",
    batches: Sequence[int] = (1, 128),
    seconds: float = 1.5,
) -> list[Cost]:
    """Measure copies of models on random images of `input_shape` (3, H, W).

    FLOPs are those of convolutions and matrix products (papers that count a multiply-add as 1 show half). A batch
    size takes about `seconds` a model, or 5 passes after a warm-up where these are slower. Models take turns pass
    by pass, so that other load on the machine affects them alike.

    Raises:
        ValueError: no or non-positive batch sizes, a negative time.
    """
    if not batches or min(batches) < 1 or seconds < 0:
        raise ValueError(f"need batches of 1 or more, seconds of 0 or more, got {list(batches)}, {seconds}")
    models = [copy.deepcopy(model).to(device).eval() for model in models]
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(max(batches), *input_shape, generator=generator).to(device)  # (B, 3, H, W)
    with torch.no_grad():
        timed = [measure_latencies(models, images[:batch], seconds) for batch in batches]
        return [
            _measure_cost(model, images[:1], [latencies[number] for latencies in timed], str(device))
            for number, model in enumerate(models)
        ]


def _measure_cost(model: nn.Module, image: torch.Tensor, latencies: list[Latency], device: str) -> Cost:
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    return Cost(
        parameters=sum(p.numel() for p in model.parameters()),
        flops=_count_flops(model, image),
        state_bytes=buffer.tell(),
        latencies=latencies,
        device=device,
        threads=torch.get_num_threads(),
    )


def _count_flops(model: nn.Module, image: torch.Tensor) -> int:
    """Count the products of one pass, with attention as matrix products: the counter overlooks fused kernels."""
    uses_fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(image)
    finally:
        torch.backends.mha.set_fastpath_enabled(uses_fastpath)
    return int(counter.get_total_flops())


def compute_cost_ratio(cost: Cost, reference: Cost) -> CostRatio:
    """Compute each number of `cost` as a multiple of the reference's.

    Latencies from different devices, or different numbers of CPU threads, are not compared.
    """
    names = ("parameters", "flops", "state_bytes")
    notes = {name: "The reference has none." for name in names if getattr(reference, name) == 0}
    ratios: dict[str, Any] = {
        name: None if name in notes else getattr(cost, name) / getattr(reference, name) for name in names
    }
    medians = {item.batch: item.median_ms for item in reference.latencies}
    latency: dict[str, float | None] = {
        str(item.batch): item.median_ms / medians[item.batch] for item in cost.latencies if item.batch in medians
    }
    if (cost.device, cost.threads) != (reference.device, reference.threads):
        latency = dict.fromkeys(latency)
        notes["latency"] = "The two were timed on different devices or numbers of threads."
    return CostRatio(**ratios, latency=latency, notes=notes)


def measure_latencies(models: Sequence[ForwardPass], images: torch.Tensor, seconds: float) -> list[Latency]:
    """Measure passes of `images` (B, ...) in turn, about `seconds` a model."""
    _measure_passes(models, images, budget=seconds / 5, at_least=1)  # warm-up
    found = []
    for times in _measure_passes(models, images, budget=seconds * 4 / 5, at_least=MIN_REPEATS):
        low, median, high = (float(q) for q in np.percentile(times, [25, 50, 75]))
        found.append(Latency(len(images), len(times), 1000 * median, 1000 * (high - low), len(images) / median))
    return found


def _measure_passes(
    models: Sequence[ForwardPass], images: torch.Tensor, budget: float, at_least: int
) -> list[list[float]]:
    """Return seconds of passes by model, for about `budget` seconds a model."""
    times: list[list[float]] = [[] for _ in models]
    end = time.perf_counter() + budget * len(models)
    while models and (len(times[0]) < at_least or time.perf_counter() < end):
        for model, of_model in zip(models, times, strict=True):
            _synchronise(images.device)
            start = time.perf_counter()
            model(images)
            _synchronise(images.device)  # a GPU returns before it has finished
            of_model.append(time.perf_counter() - start)
    return times


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
