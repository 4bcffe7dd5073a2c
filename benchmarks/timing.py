"""Times, peak memory and rates, measured alike by every benchmark, and the table of what they must reach."""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from models.peak import read_process_peak

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Timing:
    """Seconds of one call, and the peak memory that the calls added to the process."""

    name: str
    seconds: float  # median
    fastest: float
    repeats: int
    peak_mb: float  # NaN where it was not measured
    floor: float | None = None  # seconds that the arithmetic alone must take at the measured matrix rate

    def scaled(self, factor: float, added: float = 0.0) -> Timing:
        """Return the timing of so many such calls, and of what comes once beside them."""
        floor = None if self.floor is None else self.floor * factor
        seconds, fastest = (value * factor + added for value in (self.seconds, self.fastest))
        return replace(self, seconds=seconds, fastest=fastest, floor=floor)


@dataclass(frozen=True)
class Claim:
    """A line of the table: what was measured, and what it must reach if anything."""

    what: str
    value: float | None = None
    of: str = ""  # what the value is
    target: float | None = None
    at_most: bool = False  # whether the target is an upper bound
    timing: Timing | None = None

    @property
    def met(self) -> bool | None:
        if self.target is None or self.value is None:
            return None
        return self.value <= self.target if self.at_most else self.value >= self.target


def measure(name: str, call: Callable[[], object], repeats: int, floor: float | None = None) -> Timing:
    """Time `repeats` calls after one of warm-up. Peak memory needs a process of its own."""
    return measure_in_turn({name: call}, repeats, [floor])[0]


def measure_in_turn(
    calls: dict[str, Callable[[], object]], repeats: int, floors: Sequence[float | None]
) -> list[Timing]:
    """Time several calls, one repeat of each in turn, so that what else the machine does meets them alike."""
    before = peak_mb()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats + 1):
        for name, call in calls.items():
            wait()
            start = time.perf_counter()
            call()
            wait()
            times[name].append(time.perf_counter() - start)
    added = peak_mb() - before
    return [
        Timing(name, statistics.median(seconds), min(seconds), repeats, added, floor)
        for (name, (_, *seconds)), floor in zip(times.items(), floors, strict=True)
    ]


def wait() -> None:
    """Let a GPU finish what it was given, where this process uses one."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def matrix_rate(dtype: torch.dtype, size: int = 2048, device: torch.device = CPU) -> float:
    """Return the floating-point operations a second of a square matrix product, the best of five."""
    matrix = torch.randn(size, size, device=device).to(dtype)
    return 2 * size**3 / measure("", lambda: matrix @ matrix, 5).fastest


def arithmetic(call: Callable[[], object]) -> int:
    """Count the floating-point operations of the products and convolutions that torch does in `call`."""
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


def peak_mb() -> float:
    """Return the largest resident size of this process so far."""
    return read_process_peak() / 2**20


def in_own_process(module: str, case: str, options: Sequence[str] = ()) -> list[Timing]:
    """Run `python -m benchmarks.MODULE --case CASE` with options, which prints its timings as JSON.

    Raises:
        RuntimeError: the process failed; with what it wrote.
    """
    command = [sys.executable, "-m", f"benchmarks.{module}", "--case", case, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[1:])} failed:\n{done.stderr}")
    return [Timing(**timing) for timing in json.loads(done.stdout.splitlines()[-1])]


def command_line(
    description: str | None,
    cases: Sequence[str],
    run: Callable[[str], list[Timing]],
    claims: Callable[[], list[Claim]],
) -> None:
    """Run a benchmark as a script: all of its claims, or one case for `in_own_process`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=cases, help="measure one case in this process and print JSON")
    case = parser.parse_args().case
    print(table(claims()) if case is None else json.dumps([asdict(timing) for timing in run(case)]))


def table(claims: Sequence[Claim]) -> str:
    """Return one line a claim; the floor is what arithmetic alone takes, `x floor` how far a time is from it."""
    rows: list[tuple[str, ...]] = [("what", "time", "memory", "measured", "", "target", "", "floor", "x floor")]
    rows += [_cells(claim) for claim in claims]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in (0, 4, 6) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _cells(claim: Claim) -> tuple[str, ...]:
    timing = claim.timing
    floor = None if timing is None else timing.floor
    return (
        claim.what,
        "" if timing is None else _time(timing.seconds),
        "" if timing is None or math.isnan(timing.peak_mb) else f"{timing.peak_mb:,.0f} MB",
        "" if claim.value is None else f"{claim.value:.3g}",
        claim.of,
        "" if claim.target is None else f"{'<=' if claim.at_most else '>='} {claim.target:g}",
        {True: "met", False: "MISSED", None: ""}[claim.met],
        "" if floor is None else _time(floor),
        "" if timing is None or floor is None else f"{timing.seconds / floor:.1f}",
    )


def _time(seconds: float) -> str:
    return f"{seconds:,.1f} s" if seconds >= 10 else f"{seconds * 1e3:,.1f} ms"
