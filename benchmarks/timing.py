"""Times of several calls in turn, and the table of their ratios to a named reference of the same run."""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from models.peak import measure_memory_growth

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Timing:
    """Seconds of a call, and the bytes that it needed where that was measured."""

    seconds: float  # median
    fastest: float
    memory: int | None = None

    def scale(self, factor: float, added: float = 0.0) -> Timing:
        """Return the timing of so many such calls, and of what comes once beside them."""
        return Timing(self.seconds * factor + added, self.fastest * factor + added, self.memory)


Timings = dict[str, Timing]  # by name; the first is the reference
Part = Callable[[torch.device], Timings]


def measure_in_turn(
    calls: Mapping[str, Callable[[], object]], repeats: int, device: torch.device, memory: bool = False
) -> Timings:
    """Time calls, one repeat of each in turn, so that other work on the machine meets them alike.

    Args:
        calls: what to time, by name; the first call of each is not counted.
        repeats: how often each is timed.
        device: where they compute.
        memory: whether to measure by how much the first call of each raises memory.
    """
    growth = {name: measure_memory_growth(call, device) for name, call in calls.items()} if memory else {}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats + 1):
        for name, call in calls.items():
            wait_for_device(device)
            start = time.perf_counter()
            call()
            wait_for_device(device)
            seconds[name].append(time.perf_counter() - start)
    return {
        name: Timing(statistics.median(found), min(found), growth.get(name))
        for name, (_, *found) in seconds.items()
    }


def wait_for_device(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def format_table(title: str, timings: Timings) -> str:
    """Return a line for each timing: seconds, the share of the reference's seconds, memory."""
    reference = next(iter(timings))
    rows = [("", "time", f"of {reference}", "memory")]
    for name, timing in timings.items():
        ratio = timing.seconds / timings[reference].seconds
        memory = "" if timing.memory is None else f"{timing.memory / 2**20:,.0f} MB"
        rows.append((name, _format_seconds(timing.seconds), f"{ratio:.3g}", memory))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.rjust(width) if number else cell.ljust(width) for number, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(row, widths, strict=True)) for row in rows)
    ]
    return "\n".join([title, *(line.rstrip() for line in lines)])


def _format_seconds(seconds: float) -> str:
    return f"{seconds:,.1f} s" if seconds >= 10 else f"{seconds * 1e3:,.1f} ms"


def run_parts(description: str | None, parts: Mapping[str, Part], default_device: str = "cpu") -> None:
    """Run a benchmark as a script: print each part's table, and append it to a file, as soon as it is made."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device, default=default_device, help="cpu, cuda or cuda:1")
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts), help="what to measure")
    parser.add_argument("--output", type=Path, help="a file that tables are appended to")
    given = parser.parse_args()
    write(describe_machine(given.device), given.output)
    for title in given.parts:
        torch.manual_seed(0)
        write(format_table(title, parts[title](given.device)), given.output)


def describe_machine(device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU"
    return (
        f"{name}, {torch.get_num_threads()} threads, Python {platform.python_version()}, torch {torch.__version__}"
    )


def write(text: str, path: Path | None) -> None:
    print(text, "", sep="\n", flush=True)
    if path is not None:
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{text}\n\n")
