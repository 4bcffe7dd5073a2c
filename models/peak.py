"""How much memory something needs: of this process, and of a GPU. All sizes are bytes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Peak:
    """The most memory over some calls: `process` is resident, `gpu` is that of tensors on a GPU, 0 without one.

    Where the system cannot forget a peak (anywhere but on Linux), `process` is that of the whole process so far.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.process = self.gpu = 0

    def growth(self, call: Callable[[], object]) -> int:
        """Call it; gives how far memory rose above what was held before, on the device that computes."""
        forget_peak(self.device)
        before = _held(self.device)
        call()
        process, gpu = process_peak(), gpu_peak(self.device)
        self.process, self.gpu = max(self.process, process), max(self.gpu, gpu)
        return max(0, (gpu if self.device.type == "cuda" else process) - before)


def process_peak() -> int:
    """The largest resident size since the last call of `Peak.growth` began, or of all time.

    `getrusage` counts what the parent held when it started this process, so Linux's own record comes first.
    """
    if STATUS.exists():
        return _of_status("VmHWM")
    if sys.platform == "win32":  # where the standard library asks for no peak
        return 0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak(device: torch.device) -> bool:
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
    return _of_status("VmRSS") if STATUS.exists() else process_peak()


def gpu_peak(device: torch.device) -> int:
    """The most bytes of tensors on a GPU since `forget_peak`, 0 without one."""
    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else 0


def _of_status(name: str) -> int:
    """A size in the system's record of this process, which it gives in kB."""
    return int(STATUS.read_text(encoding="utf-8").split(f"{name}:")[1].split()[0]) * 1024
