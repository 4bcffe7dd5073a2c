"""The device and the precision to compute with."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn
from torch.backends.cuda import enable_cudnn_sdp, enable_flash_sdp, enable_mem_efficient_sdp

from errors import UserError, info, warn

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"

ModuleT = TypeVar("ModuleT", bound=nn.Module)


@dataclass(frozen=True)
class Machine:
    """The device and the precision, and whether progress is shown."""

    device: torch.device
    bfloat16: bool
    quiet: bool = False
    sync_batch_norm: bool = False  # statistics of all processes' batches
    float16: bool = False  # in place of bfloat16; then losses are scaled in training
    compile: bool = False  # blocks of networks in training
    capture: bool = False  # training passes as CUDA graphs

    @property
    def dtype(self) -> torch.dtype:
        """The type in which networks multiply."""
        return torch.bfloat16 if self.bfloat16 else torch.float16 if self.float16 else torch.float32

    @property
    def precision(self) -> str:
        """The name of `dtype`."""
        return str(self.dtype).removeprefix("torch.")

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context in which networks and losses run."""
        lower = torch.float16 if self.float16 else torch.bfloat16
        return torch.autocast(self.device.type, lower, enabled=self.dtype != torch.float32)

    def place(self, model: ModuleT) -> ModuleT:
        """Move a network to the device, convolutions in channels-last order."""
        model.to(self.device)
        return model.to(memory_format=torch.channels_last)


def choose_device(name: str) -> torch.device:
    """Return a device by name; `auto` is CUDA where there is a GPU, otherwise the CPU.

    Raises:
        UserError: a name that is no device, or a GPU that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name}: use auto, cpu, cuda or cuda:1") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"--device {name}: use auto, cpu, cuda or cuda:1")
    if device.type == "cpu" and device.index:
        raise UserError(f"--device {name}: there is one CPU device, use cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices, use cpu or auto"
        )
    return device


def compute_reproducibly(device: torch.device) -> None:
    """Have a GPU give the same bits in every run, as a CPU does anyway.

    Operations without a deterministic form get torch's warning (docs/scaling.md lists them).
    """
    if device.type != "cuda":
        return
    if device.index is not None:  # a CUDA graph is on the current device
        torch.cuda.set_device(device)
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    # torch would otherwise fill new memory, a call of the GPU for every tensor
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    for enable_fused in (enable_flash_sdp, enable_mem_efficient_sdp, enable_cudnn_sdp):
        enable_fused(False)  # their gradients are sums in no fixed order
    # torch requires the variable before the first product alone, but up to 2.11 parses it before every one, which
    # takes a CPU longer than to launch the product
    if WORKSPACE not in os.environ:
        os.environ[WORKSPACE] = ":4096:8"
        some = torch.ones(2, 2, device=device)
        torch.mm(some, some)
        del os.environ[WORKSPACE]


def open_machine(precision: str, device: torch.device, quiet: bool = False) -> Machine:
    """Return the machine for a config's precision on a device.

    From then on a GPU computes reproducibly. `auto` is bfloat16 where the hardware multiplies it, otherwise
    float32. It is never float16, which skips steps and so trains differently. A precision that the hardware only
    emulates gets a warning.
    """
    compute_reproducibly(device)
    native = supports_bfloat16(device)
    if precision == "bfloat16" and not native:
        warn("precision=bfloat16 is not native to this processor and far slower than float32: use precision=auto")
    if precision == "float16" and not _supports_float16(device):
        warn("precision=float16 is not native to this processor and slower than float32: it is for GPUs")
    if precision == "auto" and device.type == "cuda" and not native:
        info("precision=auto is float32 on this GPU, which has no bfloat16: precision=float16 is faster")
    bfloat16 = native if precision == "auto" else precision == "bfloat16"
    return Machine(device, bfloat16, quiet, float16=precision == "float16")


def supports_bfloat16(device: torch.device) -> bool:
    """Return whether a device multiplies bfloat16 natively.

    Without that it is tens of times slower. torch's own limit on a CPU's instructions (ATEN_CPU_CAPABILITY) is
    respected.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return _has_instructions("avx512_bf16", "amx_bf16")


def _supports_float16(device: torch.device) -> bool:
    return device.type == "cuda" or _has_instructions("avx512_fp16", "amx_fp16")


def _has_instructions(*instructions: str) -> bool:
    wide = torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "NO AVX", "AVX2")
    if not wide or not hasattr(torch.cpu, "get_capabilities"):
        return False
    found = torch.cpu.get_capabilities()
    return any(found.get(name) for name in instructions)
