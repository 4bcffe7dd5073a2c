"""Times, peak memory and the machine's matrix rate, measured the same way by every benchmark."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Timing:
    """Seconds of one call, and the peak memory that the calls added to the process."""

    name: str
    seconds: float  # median
    fastest: float
    repeats: int
    peak_mb: float
    floor: float | None = None  # seconds that the arithmetic alone must take at the measured matrix rate


def measure(name: str, call: Callable[[], object], repeats: int, floor: float | None = None) -> Timing:
    """Time `repeats` calls after one of warm-up. Peak memory needs a process of its own."""
    before = _peak_mb()
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return Timing(name, statistics.median(times), min(times), repeats, _peak_mb() - before, floor)


def matrix_rate(dtype: torch.dtype, size: int = 2048) -> float:
    """Floating-point operations a second of a square matrix product, the best of five."""
    matrix = torch.rand(size, size).to(dtype)
    return 2 * size**3 / measure("", lambda: matrix @ matrix, 5).fastest


def in_own_process(module: str, case: str) -> Timing:
    """Run `python -m benchmarks.MODULE --case CASE`, which prints one timing as JSON."""
    command = [sys.executable, "-m", f"benchmarks.{module}", "--case", case]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return Timing(**json.loads(done.stdout.splitlines()[-1]))


def print_json(timing: Timing) -> None:
    """What `in_own_process` reads."""
    print(json.dumps(asdict(timing)))


def table(timings: Sequence[Timing], reference: Timing) -> str:
    """Each timing with its ratio to the reference's time and memory, and to its own floor."""
    lines = [f"{'what':44} {'median':>10} {'peak':>9} {'faster':>8} {'memory':>8} {'x floor':>8}"]
    for timing in timings:
        floor = "" if timing.floor is None else f"{timing.seconds / timing.floor:8.1f}"
        lines.append(
            f"{timing.name:44} {timing.seconds * 1e3:7.1f} ms {timing.peak_mb:6.0f} MB "
            f"{reference.seconds / timing.seconds:7.1f}x {timing.peak_mb / reference.peak_mb:8.3f} {floor:>8}"
        )
    return "\n".join(lines)


def _peak_mb() -> float:
    """Largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
