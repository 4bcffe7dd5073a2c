"""A network's pass forward and backward in training as one call of a GPU each, by CUDA graphs.

A layer of a small network keeps a GPU busy for a few microseconds, and asking for it takes a CPU longer than that.
So the kernels of a whole pass are captured at the first batch, and replayed for every further one of its size.
They are those that would have run, in the same order. What a network decides or draws on the CPU meanwhile
stays so; random numbers that the GPU draws are new in every pass.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from errors import MachineError
from models.taps import TappedModel

EXPECTED = (  # of torch's own trial passes, on another stream than the steps
    "The AccumulateGrad node's stream does not match",
    "Attempting to run cuBLAS, but there was no current CUDA context",
)


class Captured:
    """The forward of a module: where gradients are wanted, a graph of it for each size of batch."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.plain: Callable[[Tensor], Any] = module.forward
        self.graphs: dict[torch.Size, Callable[[Tensor], Any]] = {}

    def __call__(self, images: Tensor) -> Any:
        if not torch.is_grad_enabled():
            return self.plain(images)
        if images.shape not in self.graphs:
            self.graphs[images.shape] = self._capture(images)
        return self.graphs[images.shape](images)

    def _capture(self, images: Tensor) -> Callable[[Tensor], Any]:
        """Passes for batches like `images`; what trying them changes is put back."""
        buffers = [(buffer, buffer.clone()) for buffer in self.module.buffers()]
        state = torch.cuda.get_rng_state(images.device)
        lower = torch.get_autocast_dtype("cuda")
        # a kept copy of a weight would be replayed when the weight has changed
        autocast = torch.autocast("cuda", lower, torch.is_autocast_enabled("cuda"), cache_enabled=False)
        try:
            with autocast, warnings.catch_warnings():
                for message in EXPECTED:
                    warnings.filterwarnings("ignore", message)
                warnings.filterwarnings("error", "The CUDA Graph is empty")
                graph: Callable[[Tensor], Any] = torch.cuda.make_graphed_callables(
                    _Pass(self.module, self.plain), (images.clone(),), allow_unused_input=True
                )
        except (RuntimeError, AssertionError, AttributeError, TypeError, UserWarning) as error:
            name, reason = _named(self.module), str(error).partition("\n")[0]
            told = f"cuda_graphs=true: a GPU cannot capture {name} ({reason}): use cuda_graphs=false"
            raise MachineError(told) from error
        torch.cuda.set_rng_state(state, images.device)
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        return graph


def _named(module: nn.Module) -> str:
    return type(module.model if isinstance(module, TappedModel) else module).__name__


class _Pass(nn.Module):
    """What is captured: a module by its forward of before, with its parameters."""

    def __init__(self, module: nn.Module, forward: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.module, self.by = module, forward

    def forward(self, images: Tensor) -> Any:
        return self.by(images)


def capture_passes(module: nn.Module) -> None:
    """Have a module on a GPU trained by captured passes; one that has them already stays as it is.

    Its first pass with gradients raises `MachineError` where a GPU cannot capture it.
    """
    if not isinstance(module.forward, Captured):
        module.forward = Captured(module)  # as torch itself does it


def release_passes(module: nn.Module) -> None:
    """Have a module run layer by layer again.

    Graphs go at once and not whenever Python collects garbage: a process that begins as a copy of this one, to
    load images, would end by freeing what it has no GPU for.
    """
    if isinstance(module.forward, Captured):
        del module.forward
        gc.collect()
