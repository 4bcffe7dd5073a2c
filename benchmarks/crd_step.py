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
from losses.crd import CRD
from losses.loss import Samples, Sizes, View
from models.machine import supports_bfloat16

B, N, K, D, CLASSES = 64, 50_000, 16_384, 256, 100
TAP = "last"
CASES = ("published", "torchdistill", "float32", "bfloat16")
FASTER = "x as fast as published"
Step = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def gathering(name: str, loss_of: Step) -> Timing:
    """Time a step on unit features (B, D) of both networks, indices (B,) and the draw (B, K + 1)."""
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


def ours(bfloat16: bool) -> Timing:
    crd = make_crd(torch.arange(N) % CLASSES, K, D)
    student, teacher = torch.randn(B, D, requires_grad=True), torch.randn(B, D)
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    floor = 4 * 2 * B * K * D / matrix_rate(dtype)  # two directions, forward and backward

    def step() -> None:
        with torch.autocast("cpu", dtype, enabled=bfloat16):
            loss = compute_loss(crd, student, teacher, torch.randperm(N)[:B])
        loss.backward()

    return measure(f"this project, {'bfloat16' if bfloat16 else 'float32'}", step, 15, floor)


def loss_difference(bfloat16: bool) -> float:
    """Return the relative difference between our loss and the published one on the same draw and banks."""
    crd = make_crd(torch.arange(N) % CLASSES, K, D)
    bank, sampler = crd.bank_at(TAP), crd.sampler
    student, teacher, indices = torch.randn(B, D), torch.randn(B, D), torch.randperm(N)[:B]
    own, other = crd.project(View(student, {TAP: student}), View(teacher, {TAP: teacher}))[TAP]
    by_sample = sampler.position
    banks = bank.student.features[by_sample].double(), bank.teacher.features[by_sample].double()
    bank.log_z.fill_(math.log(N))
    bank.normalizers_set = True
    before = torch.get_rng_state()
    drawn = reference.drawn_samples(sampler, sampler.draw(indices))
    wanted = reference.step(own.double(), other.double(), banks, indices, drawn, float(N))
    torch.set_rng_state(before)  # so that the loss draws the same
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        given = compute_loss(crd, student, teacher, indices)
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
    native = supports_bfloat16(torch.device("cpu"))
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
