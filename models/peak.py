"""How much memory something needs: of this process, and of a GPU. All sizes are bytes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def measure_memory_growth(call: Callable[[], object], device: torch.device) -> int:
    """Call something and give how far memory rose above what was held before, on the device that computes.

    Where the system cannot forget a peak (anywhere but on Linux), the process's is that of all time.
    """
    reset_peak(device)
    before = _held(device)
    call()
    return max(0, (read_gpu_peak(device) if device.type == "cuda" else read_process_peak()) - before)


def read_process_peak() -> int:
    """The largest resident size since `reset_peak`, or of all time.

    `getrusage` counts what the parent held when it started this process, so Linux's own record comes first.
    """
    if STATUS.exists():
        return _of_status("VmHWM")
    if sys.platform == "win32":  # where the standard library asks for no peak
        return 0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def reset_peak(device: torch.device) -> bool:
    """Have peaks count from now on; whether the process's does."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        CLEAR.write_text("5", encoding="ascii")  # Linux: the peak becomes what is resident now
    except OSError:
        return False
    return True


def _held(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    return _of_status("VmRSS") if STATUS.exists() else read_process_peak()


def read_gpu_peak(device: torch.device) -> int:
    """The most bytes of tensors on a GPU since `reset_peak`, 0 without one."""
    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else 0


def _of_status(name: str) -> int:
    """A size in the system's record of this process, which it gives in kB."""
    return int(STATUS.read_text(encoding="utf-8").split(f"{name}:")[1].split()[0]) * 1024
