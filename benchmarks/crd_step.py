"""One CRD step (draw, forward, backward, bank update) at the published setting, against the published algorithm.

    python -m benchmarks.crd_step

B 64, N 50,000, K 16,384, d 256, mode exact, one tap. Also prints how far the losses of both are apart on one draw.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks import reference
from benchmarks.timing import Timing, in_own_process, matrix_rate, measure, print_json, table
from losses.crd import CRDLoss

B, N, K, D, CLASSES = 64, 50_000, 16_384, 256, 100
CASES = ("published", "float32", "bfloat16")


def published() -> Timing:
    labels = np.arange(N) % CLASSES
    rng = np.random.default_rng(0)
    banks = F.normalize(torch.randn(N, D), dim=1), F.normalize(torch.randn(N, D), dim=1)
    features = [torch.randn(B, D, requires_grad=True) for _ in range(2)]

    def step() -> None:
        indices = rng.choice(N, B, replace=False)
        drawn = reference.draw(labels, indices, K, rng)
        student, teacher = (F.normalize(feature, dim=1) for feature in features)
        reference.step(student, teacher, banks, torch.from_numpy(indices), drawn, float(N)).backward()

    return measure("published algorithm, float32", step, 3)


def ours(bfloat16: bool) -> Timing:
    crd = CRDLoss(D, D, torch.arange(N) % CLASSES, dim=D, num_negatives=K)
    student, teacher = torch.randn(B, D, requires_grad=True), torch.randn(B, D)
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    floor = 4 * 2 * B * N * D / matrix_rate(dtype)  # two directions, forward and backward

    def step() -> None:
        with torch.autocast("cpu", dtype, enabled=bfloat16):
            loss = crd(student, teacher, torch.randperm(N)[:B])
        loss.backward()

    return measure(f"this project, {'bfloat16' if bfloat16 else 'float32'}", step, 15, floor)


def loss_difference(bfloat16: bool) -> float:
    """Relative difference between our loss and the published one on the same draw and banks."""
    crd = CRDLoss(D, D, torch.arange(N) % CLASSES, dim=D, num_negatives=K)
    student, teacher, indices = torch.randn(B, D), torch.randn(B, D), torch.randperm(N)[:B]
    draw = crd.draw(indices)
    projected = crd.project(student, teacher)
    by_sample = crd.sampler.position
    banks = crd.student_bank.features[by_sample].double(), crd.teacher_bank.features[by_sample].double()
    crd.log_z.fill_(math.log(N))
    crd.normalizers_set = True
    features = projected[0].double(), projected[1].double()
    wanted = reference.step(*features, banks, indices, crd.sampler.samples(draw), float(N))
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        given = crd(student, teacher, indices, draw)
    return abs(given.item() / wanted.item() - 1)


def run(case: str) -> Timing:
    torch.manual_seed(0)
    return published() if case == "published" else ours(case == "bfloat16")


def main() -> list[Timing]:
    timings = [in_own_process("crd_step", case) for case in CASES]
    print(table(timings, timings[0]))
    torch.manual_seed(0)
    for bfloat16 in (False, True):
        name = "bfloat16" if bfloat16 else "float32"
        print(f"loss against float64 of the published form, {name}: {loss_difference(bfloat16):.1e} relative")
    return timings


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", choices=CASES, help="measure one case in this process and print JSON")
    case = parser.parse_args().case
    print_json(run(case)) if case else main()
