"""Speed and memory of a training, which timing.jsonl keeps and no identity depends on."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, TypeAdapter, ValidationError

from models.peak import read_gpu_peak, read_process_peak, reset_peak

MemoryOf = Literal["process and what it ran before", "process", "device"]  # the least precise first


@dataclass(frozen=True)
class EpochUsage:
    """Usage of one epoch."""

    epoch: int
    images_per_second: PositiveFloat  # of the steps alone
    seconds: NonNegativeFloat  # of the steps and the measures after them
    peak_memory: NonNegativeInt  # bytes, since the training began
    memory_of: MemoryOf

    def to_line(self) -> str:
        """Return the epoch's line in timing.jsonl."""
        rounded = {"images_per_second": round(self.images_per_second, 1), "seconds": round(self.seconds, 3)}
        return json.dumps({**asdict(self), **rounded}) + "\n"


@dataclass(frozen=True)
class Usage:
    """Usage of a whole training; None where timing.jsonl lacks an epoch."""

    seconds: float | None = None  # sum over epochs
    images_per_second: float | None = None  # of the steps, mean over epochs of equally many images
    peak_memory: int | None = None  # bytes
    memory_of: MemoryOf | None = None


class PeakMemory:
    """The most memory held since this was made: allocated on a GPU, resident in the process elsewhere."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        is_reset = reset_peak(device)
        of_process: MemoryOf = "process" if is_reset else "process and what it ran before"
        self.of: MemoryOf = "device" if device.type == "cuda" else of_process

    def read(self) -> int:
        """Return the peak in bytes."""
        return read_gpu_peak(self.device) if self.of == "device" else read_process_peak()


READER = TypeAdapter(EpochUsage)


def read_usage(timing: Path, epochs: int) -> Usage:
    """Read timing.jsonl of a training; the last line of an epoch counts, and damaged lines are ignored."""
    if not timing.is_file():
        return Usage()
    found: dict[int, EpochUsage] = {}
    for line in timing.read_bytes().splitlines():
        with suppress(ValidationError):
            usage = READER.validate_json(line, strict=True)
            found[usage.epoch] = usage
    if set(found) != set(range(1, epochs + 1)):
        return Usage()
    lines = list(found.values())
    return Usage(
        seconds=sum(line.seconds for line in lines),
        images_per_second=epochs / sum(1 / line.images_per_second for line in lines),
        peak_memory=max(line.peak_memory for line in lines),
        memory_of=min((line.memory_of for line in lines), key=get_args(MemoryOf).index),
    )
