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

Network = Callable[[torch.Tensor], object]  # a batch (B, ...) to its outputs


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
    """What `model_costs` measures of a model."""

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


def model_costs(
    models: Sequence[nn.Module],
    input_shape: Sequence[int],
    device: torch.device | str = "cpu",
    batches: Sequence[int] = (1, 128),
    seconds: float = 1.5,
) -> list[Cost]:
    """Cost of models in evaluation mode on random images of `input_shape` (3, H, W), timed in turn.

    Copies are measured, so the models themselves keep their device and their mode. Parameters that two layers
    share count once. FLOPs are those PyTorch's counter knows, convolutions and matrix products, a multiply-add
    as 2 (papers that say "MACs" or count it as 1 show half); normalisation, activations and pooling are not
    counted. A batch size takes about `seconds` a model, or 5 passes after one of warm-up where these are slower;
    models take turns pass by pass, so that what else the machine does meets them alike.

    Raises
    ------
    ValueError : no or non-positive batch sizes, a negative time.
    """
    if not batches or min(batches) < 1 or seconds < 0:
        raise ValueError(f"need batches of 1 or more, seconds of 0 or more, got {list(batches)}, {seconds}")
    models = [copy.deepcopy(model).to(device).eval() for model in models]
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(max(batches), *input_shape, generator=generator).to(device)  # (B, 3, H, W)
    with torch.no_grad():
        timed = [latencies(models, images[:batch], seconds) for batch in batches]
        return [
            _cost(model, images[:1], [of_batch[number] for of_batch in timed], str(device))
            for number, model in enumerate(models)
        ]


def _cost(model: nn.Module, image: torch.Tensor, latencies: list[Latency], device: str) -> Cost:
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    with FlopCounterMode(display=False) as counter:
        model(image)
    return Cost(
        parameters=sum(p.numel() for p in model.parameters()),
        flops=int(counter.get_total_flops()),
        state_bytes=buffer.tell(),
        latencies=latencies,
        device=device,
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


def latencies(models: Sequence[Network], images: torch.Tensor, seconds: float) -> list[Latency]:
    """Times of a pass of all `images` (B, ...) through each model, in turn, for about `seconds` a model."""
    _seconds_each(models, images, budget=seconds / 5, at_least=1)  # warm-up
    times = _seconds_each(models, images, budget=seconds * 4 / 5, at_least=MIN_REPEATS)
    return [_latency(len(images), of_model) for of_model in times]


def _latency(batch: int, times: Sequence[float]) -> Latency:
    low, median, high = (float(q) for q in np.percentile(times, [25, 50, 75]))
    return Latency(
        batch=batch,
        repeats=len(times),
        median_ms=1000 * median,
        iqr_ms=1000 * (high - low),
        images_per_second=batch / median,
    )


def _seconds_each(
    models: Sequence[Network], images: torch.Tensor, budget: float, at_least: int
) -> list[list[float]]:
    """Times of passes, the models in turn, for about `budget` seconds a model."""
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
