"""A CRD step and epochs of training on a GPU, against the published algorithm and a plain torchvision loop there.

    python -m benchmarks.on_gpu [--device cuda:1]

The step at the published setting (B 64, N 50,000, K 16,384, d 256, mode exact, one tap); the published one is
given its negatives, which its data loader would draw. Epochs are those of `benchmarks.epoch`, layer by layer
and with captured passes (`cuda_graphs: true`); the loops to compare with read images by a process a core here.
Memory is what PyTorch allocated on the GPU.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks import epoch, reference
from benchmarks.crd_step import CLASSES, FASTER, B, D, K, N, compute_loss, make_crd
from benchmarks.timing import Claim, Timing, matrix_rate, measure_in_turn, table
from models.machine import compute_reproducibly
from models.peak import memory_growth

REPEATS = 30
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def published_step(device: torch.device) -> Callable[[], object]:
    """Return a call of forward, backward and the update of the banks, for negatives drawn before."""
    labels, rng = np.arange(N) % CLASSES, np.random.default_rng(0)
    features = [torch.randn(B, D, device=device, requires_grad=True) for _ in range(2)]
    own, other = (F.normalize(torch.randn(N, D, device=device), dim=1) for _ in range(2))
    indices = rng.choice(N, B, replace=False)
    drawn = reference.draw(labels, indices, K, rng).to(device)
    places = torch.from_numpy(indices).to(device)

    def step() -> None:
        student, teacher = (F.normalize(feature, dim=1) for feature in features)
        reference.step(student, teacher, (own, other), places, drawn, float(N)).backward()

    return step


def our_step(device: torch.device, dtype: torch.dtype) -> Callable[[], object]:
    """Return the same by this project, the draw included."""
    crd = make_crd(torch.arange(N, device=device) % CLASSES, K, D)
    student = torch.randn(B, D, device=device, requires_grad=True)
    teacher = torch.randn(B, D, device=device)

    def step() -> None:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = compute_loss(crd, student, teacher, torch.randperm(N, device=device)[:B])
        loss.backward()

    return step


def steps(device: torch.device) -> list[Timing]:
    """Time the published step and ours in either precision, each with the memory that it added."""
    floor = 4 * 2 * B * K * D  # two directions, forward and backward
    calls: dict[str, Callable[[], object]] = {"published": published_step(device)}
    floors: list[float | None] = [None]
    for name, dtype in PRECISIONS.items():
        calls[name] = our_step(device, dtype)
        floors.append(floor / matrix_rate(dtype, device=device))
    memory = [memory_growth(call, device) / 2**20 for call in calls.values()]
    timings = measure_in_turn(calls, REPEATS, floors)
    return [replace(timing, peak_mb=added) for timing, added in zip(timings, memory, strict=True)]


def epochs(device: torch.device, capture: bool) -> dict[str, Timing]:
    """Time epochs of plain training and of each form of stage 1, and reordering the banks."""
    with tempfile.TemporaryDirectory() as folder:
        alone, aligned, *forms, once = epoch.in_turn(Path(folder), device, capture)
    gc.collect()  # graphs, which processes that load images must not copy
    of_forms = {"from a bank": aligned, **dict(zip(epoch.FORMS, forms, strict=True))}
    return {"plain": alone, **of_forms, "reordering": once}


def claims(device: torch.device) -> list[Claim]:
    """Make every line of the table."""
    published, *ours = steps(device)
    lines = [Claim("CRD step: published, negatives given", timing=published)]
    lines += [Claim(f"CRD step: {one.name}", published.seconds / one.seconds, FASTER, timing=one) for one in ours]
    with tempfile.TemporaryDirectory() as folder:
        [loop] = epoch.published(Path(folder), device)
        [peer] = epoch.torchvision(Path(folder), device)
    workers = f"{reference.workers(device)} workers"
    lines.append(Claim(f"plain training: torchvision, {workers}", timing=_on_gpu(peer)))
    lines.append(Claim(f"stage 1 epoch: published loop, {workers}", timing=_on_gpu(loop)))
    for capture in (False, True) if device.type == "cuda" else (False,):
        timings, word = epochs(device, capture), ", captured" if capture else ""
        alone, once = timings.pop("plain"), timings.pop("reordering")
        faster = peer.seconds / alone.seconds
        lines.append(Claim(f"plain training{word}", faster, epoch.AS_FAST, timing=_on_gpu(alone)))
        for form, timing in timings.items():
            ratio = timing.seconds / alone.seconds
            lines.append(Claim(f"stage 1 epoch, {form}{word}", ratio, "x plain training", timing=_on_gpu(timing)))
        faster = loop.seconds / timings["from a bank"].seconds
        lines.append(Claim(f"stage 1 epoch, from a bank{word}", faster, "x as fast as the published loop"))
        lines.append(Claim(f"reordering the banks (in their epoch){word}", timing=_on_gpu(once)))
    return lines


def _on_gpu(timing: Timing) -> Timing:
    """Drop the process's memory, which says nothing of the GPU's."""
    return replace(timing, peak_mb=float("nan"))


def main(device: torch.device) -> None:
    compute_reproducibly(device)
    torch.manual_seed(0)
    if device.type == "cuda":
        print(torch.cuda.get_device_name(device))
    print(table(claims(device)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device, default="cuda", help="which GPU")
    main(parser.parse_args().device)
