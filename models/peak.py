"""Memory of this process and of a GPU, in bytes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def measure_memory_growth(call: Callable[[], object], device: torch.device) -> int:
    """Return how far a call raises memory above what was held before."""
    reset_peak(device)
    if device.type == "cuda":
        before = int(torch.cuda.memory_allocated(device))
    else:
        before = _read_status("VmRSS") if STATUS.exists() else read_process_peak()
    call()
    return max(0, (read_gpu_peak(device) if device.type == "cuda" else read_process_peak()) - before)


def reset_peak(device: torch.device) -> bool:
    """Reset peaks; return whether the process's was, which only Linux allows."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        CLEAR.write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def read_process_peak() -> int:
    """Return the largest resident size since `reset_peak`, or of all time.

    `getrusage` counts what the parent held when it started this process, so Linux's own record comes first.
    """
    if STATUS.exists():
        return _read_status("VmHWM")
    if sys.platform == "win32":  # the standard library has no peak there
        return 0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def read_gpu_peak(device: torch.device) -> int:
    """Return the most bytes of tensors on a GPU since `reset_peak`, 0 without one."""
    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else 0


def _read_status(name: str) -> int:
    return int(STATUS.read_text(encoding="utf-8").split(f"{name}:")[1].split()[0]) * 1024  # from kB
