"""The device and the precision to compute with."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn
from torch.backends.cuda import enable_cudnn_sdp, enable_flash_sdp, enable_mem_efficient_sdp

from errors import UserError, warn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


@dataclass(frozen=True)
class Machine:
    """Where and how numbers are computed, and whether progress is shown."""

    device: torch.device
    bfloat16: bool
    quiet: bool = False
    sync_batch_norm: bool = False  # statistics of all processes' batches
    compile: bool = False  # blocks of networks in training

    def autocast(self) -> AbstractContextManager[None]:
        """The context in which networks and losses run."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16)

    def place(self, model: ModuleT) -> ModuleT:
        """Move a network to the device, convolutions in channels-last order."""
        model.to(self.device)
        return model.to(memory_format=torch.channels_last)


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA where there is a GPU, otherwise the CPU.

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
    """Have a GPU give the same bits in every run, at some cost in speed; a CPU does so anyway.

    Attention is computed step by step: the gradients of its fused forms are sums in no fixed order. What has no
    deterministic form and cannot be avoided gets torch's warning (docs/scaling.md lists it).
    """
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)
        for fused in (enable_flash_sdp, enable_mem_efficient_sdp, enable_cudnn_sdp):
            fused(False)


def open_machine(precision: str, device: torch.device, quiet: bool = False) -> Machine:
    """The machine that a config's precision asks for on a device.

    `auto` is bfloat16 where the hardware multiplies it, otherwise float32; by name either is taken, with a warning
    for a bfloat16 that the hardware only emulates.
    """
    native = multiplies_bfloat16(device)
    if precision == "bfloat16" and not native:
        warn("precision=bfloat16 is not native to this processor and far slower than float32: use precision=auto")
    return Machine(device, native if precision == "auto" else precision == "bfloat16", quiet)


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions that multiply bfloat16; without them it is tens of times slower.

    torch's own limit on a CPU's instructions (ATEN_CPU_CAPABILITY) is respected.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    wide = torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "NO AVX", "AVX2")
    if not wide or not hasattr(torch.cpu, "get_capabilities"):
        return False
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))
