"""One CRD step (draw, forward, backward, bank update) at the published setting, against the published algorithm.

    python -m benchmarks.crd_step

B 64, N 50,000, K 16,384, d 256, mode exact, one tap. Also how far the losses of both are apart on one draw,
and the time of the package torchdistill where it is installed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import reference
from benchmarks.timing import Claim, Timing, command_line, in_own_process, matrix_rate, measure
from losses.crd import CRDLoss
from models.machine import multiplies_bfloat16

B, N, K, D, CLASSES = 64, 50_000, 16_384, 256, 100
CASES = ("published", "torchdistill", "float32", "bfloat16")
FASTER = "x as fast as published"
Step = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def gathering(name: str, loss_of: Step) -> Timing:
    """A step on unit features (B, D) of student and teacher, indices (B,) and the draw (B, K + 1)."""
    labels = np.arange(N) % CLASSES
    rng = np.random.default_rng(0)
    features = [torch.randn(B, D, requires_grad=True) for _ in range(2)]

    def step() -> None:
        indices = rng.choice(N, B, replace=False)
        drawn = reference.draw(labels, indices, K, rng)
        student, teacher = (F.normalize(feature, dim=1) for feature in features)
        loss_of(student, teacher, torch.from_numpy(indices), drawn).backward()

    return measure(name, step, 3)


def published() -> Timing:
    banks = F.normalize(torch.randn(N, D), dim=1), F.normalize(torch.randn(N, D), dim=1)
    return gathering(
        "published algorithm, float32",
        lambda student, teacher, indices, drawn: reference.step(student, teacher, banks, indices, drawn, float(N)),
    )


def torchdistill() -> Timing:
    from torchdistill.losses.mid_level import CRDLoss as TheirLoss

    theirs = TheirLoss("norm", "empty", "norm", D, N, K, N, temperature=0.1)

    def loss_of(student: Tensor, teacher: Tensor, indices: Tensor, drawn: Tensor) -> Tensor:
        given = {"norm": {"output": student}, "empty": {"input": {"pos_idx": indices, "contrast_idx": drawn}}}
        summed: Tensor = theirs(given, {"norm": {"output": teacher}}).sum()
        return summed

    return gathering("torchdistill, float32", loss_of)


def ours(bfloat16: bool) -> Timing:
    crd = CRDLoss(D, D, torch.arange(N) % CLASSES, dim=D, num_negatives=K)
    student, teacher = torch.randn(B, D, requires_grad=True), torch.randn(B, D)
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    floor = 4 * 2 * B * K * D / matrix_rate(dtype)  # two directions, forward and backward

    def step() -> None:
        with torch.autocast("cpu", dtype, enabled=bfloat16):
            loss = crd(student, teacher, torch.randperm(N)[:B])
        loss.backward()

    return measure(f"this project, {'bfloat16' if bfloat16 else 'float32'}", step, 15, floor)


def loss_difference(bfloat16: bool) -> float:
    """Relative difference between our loss and the published one on the same draw and banks."""
    crd = CRDLoss(D, D, torch.arange(N) % CLASSES, dim=D, num_negatives=K)
    sampler = crd.sampler
    assert sampler is not None
    student, teacher, indices = torch.randn(B, D), torch.randn(B, D), torch.randperm(N)[:B]
    draw = sampler.draw(indices)
    projected = crd.project(student, teacher)
    by_sample = sampler.position
    banks = crd.student_bank.features[by_sample].double(), crd.teacher_bank.features[by_sample].double()
    crd.log_z.fill_(math.log(N))
    crd.normalizers_set = True
    features = projected[0].double(), projected[1].double()
    wanted = reference.step(*features, banks, indices, reference.drawn_samples(sampler, draw), float(N))
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        given = crd(student, teacher, indices, draw)
    return float(abs(given.item() / wanted.item() - 1))


def run(case: str) -> list[Timing]:
    torch.manual_seed(0)
    if case in ("float32", "bfloat16"):
        return [ours(case == "bfloat16")]
    return [published() if case == "published" else torchdistill()]


def claims() -> list[Claim]:
    [base] = in_own_process("crd_step", "published")
    lines = [Claim(f"CRD step: {base.name}", timing=base)]
    if find_spec("torchdistill") is None:
        lines.append(Claim("CRD step: torchdistill is not installed"))
    else:
        [timing] = in_own_process("crd_step", "torchdistill")
        lines.append(Claim(f"CRD step: {timing.name}", base.seconds / timing.seconds, FASTER, timing=timing))
    native = multiplies_bfloat16(torch.device("cpu"))
    for case, target in (("float32", 40), ("bfloat16", 80)):
        if case == "bfloat16" and not native:
            lines.append(Claim("CRD step: bfloat16 is not native here, left out"))
            continue
        [timing] = in_own_process("crd_step", case)
        lines.append(Claim(f"CRD step: {case}", base.seconds / timing.seconds, FASTER, target, timing=timing))
        memory = timing.peak_mb / base.peak_mb
        lines.append(Claim(f"CRD step: {case}, memory", memory, "of the published peak", 0.1, at_most=True))
    torch.manual_seed(0)
    for case, most in (("float32", 1e-5), ("bfloat16", 0.01)):
        if case == "bfloat16" and not native:
            continue
        difference = loss_difference(case == "bfloat16")
        lines.append(Claim(f"CRD step: {case}, loss", difference, "relative difference", most, at_most=True))
    return lines


if __name__ == "__main__":
    command_line(__doc__, CASES, run, claims)
