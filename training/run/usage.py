"""What a training took as it was run: seconds, images per second, and the most memory that it held.

Nothing of it follows from config and seed, so it stands in timing.jsonl alone and is part of no identity. Energy
is not among it: nothing here reads a meter.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from models.peak import read_gpu_peak, read_process_peak, reset_peak

MemoryOf = Literal["device", "process", "process and what it ran before"]


@dataclass(frozen=True)
class EpochUsage:
    """One epoch as it was run; images a second are of the steps alone, seconds of the measures after them too."""

    images_per_second: float
    seconds: float
    peak_memory: int  # bytes, since the training began
    memory_of: MemoryOf

    def line(self, epoch: int) -> str:
        """Return it as timing.jsonl holds it."""
        values = {
            "epoch": epoch,
            "images_per_second": round(self.images_per_second, 1),
            "seconds": round(self.seconds, 3),
            "peak_memory": self.peak_memory,
            "memory_of": self.memory_of,
        }
        return json.dumps(values) + "\n"


@dataclass(frozen=True)
class Usage:
    """A whole training as it was run; None where timing.jsonl does not tell it of every epoch."""

    seconds: float | None = None  # of its epochs, steps and measures
    images_per_second: float | None = None  # of its steps, mean over epochs of equally many images
    peak_memory: int | None = None  # bytes
    memory_of: MemoryOf | None = None


class PeakMemory:
    """The most memory held since this was made: allocated on a GPU, resident in the process elsewhere.

    Where the system cannot begin to count anew, what the process ran before is counted too.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        forgotten = reset_peak(device)
        of_process: MemoryOf = "process" if forgotten else "process and what it ran before"
        self.of: MemoryOf = "device" if device.type == "cuda" else of_process

    def bytes(self) -> int:
        return read_gpu_peak(self.device) if self.of == "device" else read_process_peak()


def read_usage(timing: Path, epochs: int) -> Usage:
    """Read what timing.jsonl says of a training of so many epochs; of an epoch run again, the last line.

    The file is not whole-or-nothing: a line that is none is passed over, and its epoch is not on record.
    """
    if not timing.is_file():
        return Usage()
    lines = timing.read_text(encoding="utf-8", errors="replace").splitlines()
    found = {line["epoch"]: line for line in map(_parsed, lines) if line is not None}
    if set(found) != set(range(1, epochs + 1)):
        return Usage()
    whole = [found[epoch] for epoch in range(1, epochs + 1)]
    seconds, peaks = _column(whole, "seconds"), _column(whole, "peak_memory")
    speeds = _column(whole, "images_per_second")
    kinds = {line.get("memory_of") for line in whole}
    return Usage(
        seconds=None if seconds is None else sum(seconds),
        images_per_second=None if not speeds or min(speeds) <= 0 else epochs / sum(1 / speed for speed in speeds),
        peak_memory=None if peaks is None else int(max(peaks)),
        memory_of=None if peaks is None else _weakest(kinds),
    )


def _weakest(kinds: set[Any]) -> MemoryOf | None:
    known: tuple[MemoryOf, ...] = ("process and what it ran before", "process", "device")
    return next((kind for kind in known if kind in kinds), None)


def _column(lines: list[dict[str, Any]], name: str) -> list[float] | None:
    values = [line[name] for line in lines if _is_number(line.get(name))]
    return [float(value) for value in values] if len(values) == len(lines) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        values = json.loads(line)
    except ValueError:
        return None
    known = isinstance(values, Mapping) and type(values.get("epoch")) is int
    return dict(values) if known else None
