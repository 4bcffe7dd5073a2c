"""Peak memory of this process and of a GPU, in bytes."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak(device: torch.device) -> bool:
    """Start counting peaks anew; return whether the process's peak could be reset, which Linux alone allows."""
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
        return int(STATUS.read_text(encoding="utf-8").split("VmHWM:")[1].split()[0]) * 1024  # from kB
    if sys.platform == "win32":  # the standard library has no peak there
        return 0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def read_gpu_peak(device: torch.device) -> int:
    """Return the most bytes of tensors on a GPU since `reset_peak`, 0 without one."""
    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else 0
