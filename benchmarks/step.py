"""One CRD step against the published algorithm, and a training step of every other loss against cross-entropy.

    python -m benchmarks.step [--device cuda]

The CRD step (draw, forward, backward, bank update) is at the published setting: B 64, N 50,000, K 16,384, d 256,
mode exact, one tap. The published one is given its negatives, which its data loader would draw.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import reference
from benchmarks.epoch import read_first_batches
from benchmarks.setting import load_cifar_config, make_steps, open_random_experiment, prepare_random
from benchmarks.timing import Timings, measure_in_turn, run_parts
from losses.crd import CRD
from losses.loss import Samples, Sizes, View
from training.job_name import JobName

B, N, K, D, CLASSES = 64, 50_000, 16_384, 256, 100
TAP, REPEATS = "last", 15
TRAIN, STEPS = 5_000, 3  # images and steps of the comparison of losses
METHODS: tuple[str, ...] = (
    "scratch",
    "kd",
    "dkd",
    "dist",
    "wttm",
    "rkd",
    "pkt",
    "sp",
    "cc",
    "at",
    "fitnet",
    "srrl",
    "reviewkd",
    "itrd",
)
METHODS += ("crd", "crd_kd")


def make_crd(labels: Tensor, num_negatives: int, dim: int) -> CRD:
    """Return the published loss at one tap of `dim` channels, of images with labels (N,)."""
    crd = CRD(taps={TAP: 1.0}, num_negatives=num_negatives, dim=dim)
    crd.setup(Sizes({TAP: (dim,)}, {TAP: (dim,)}, labels))
    return crd.to(labels.device)


def compute_loss(crd: CRD, student: Tensor, teacher: Tensor, indices: Tensor) -> Tensor:
    """Return the loss of features (B, D) of the images at `indices` (B,)."""
    own, other = (View(torch.empty(0), {TAP: features}) for features in (student, teacher))
    loss: Tensor = crd(own, other, Samples(indices, indices, indices))[TAP]
    return loss


def make_published_step(device: torch.device) -> Callable[[], object]:
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


def make_step(device: torch.device, dtype: torch.dtype) -> Callable[[], object]:
    crd = make_crd(torch.arange(N, device=device) % CLASSES, K, D)
    student = torch.randn(B, D, device=device, requires_grad=True)
    teacher = torch.randn(B, D, device=device)

    def step() -> None:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = compute_loss(crd, student, teacher, torch.randperm(N, device=device)[:B])
        loss.backward()

    return step


def compare_crd(device: torch.device) -> Timings:
    """Time the published step and ours in either precision."""
    calls = {
        "published step": make_published_step(device),
        "float32": make_step(device, torch.float32),
        "bfloat16": make_step(device, torch.bfloat16),
    }
    return measure_in_turn(calls, REPEATS, device, memory=True)


def compare_losses(device: torch.device) -> Timings:
    """Time training steps by each method: resnet20 from resnet18 on images of CIFAR-100's size."""
    with tempfile.TemporaryDirectory() as name:
        methods = "methods={" + ", ".join(f"{method}: " for method in METHODS) + "}"
        config = load_cifar_config(Path(name), methods, "teacher.cached_views=1")
        experiment = open_random_experiment(config, Path(name), TRAIN, device)
        calls = {}
        for method in METHODS:
            prepared = prepare_random(experiment, JobName(method, 0))
            prepared.objective.prepare(read_first_batches(prepared))
            calls[method] = make_steps(prepared, experiment.machine, STEPS)
        return measure_in_turn(calls, 3, device, memory=True)


def measure_loss_difference(bfloat16: bool) -> float:
    """Return the relative difference between our loss and the published one on the same draw and banks."""
    crd = make_crd(torch.arange(N) % CLASSES, K, D)
    bank, sampler = crd.get_bank(TAP), crd.sampler
    student, teacher, indices = torch.randn(B, D), torch.randn(B, D), torch.randperm(N)[:B]
    own, other = crd.project(View(student, {TAP: student}), View(teacher, {TAP: teacher}))[TAP]
    by_sample = sampler.position
    banks = bank.student.features[by_sample].double(), bank.teacher.features[by_sample].double()
    bank.log_z.fill_(math.log(N))
    bank.normalizers_set = True
    before = torch.get_rng_state()
    drawn = reference.list_drawn_samples(sampler, sampler.draw(indices))
    expected = reference.step(own.double(), other.double(), banks, indices, drawn, float(N))
    torch.set_rng_state(before)  # so that the loss draws the same
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        given = compute_loss(crd, student, teacher, indices)
    return float(abs(given.item() / expected.item() - 1))


PARTS = {"CRD step": compare_crd, "Training step by method": compare_losses}

if __name__ == "__main__":
    run_parts(__doc__, PARTS)
