"""CUDA graphs: a training pass through a network as one call of the GPU.

A layer of a small network keeps a GPU busy for a few microseconds, less than a CPU needs to launch it. So the
kernels of a whole pass are captured at the first batch and replayed for every further one of its size: the same
kernels in the same order. Random numbers of the GPU are new in every pass; what a network decides or draws on the
CPU stays as it was captured.
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

Forward = Callable[[Tensor], Any]
EXPECTED = (  # warnings of torch's own trial passes, which run on another stream than the steps
    "The AccumulateGrad node's stream does not match",
    "Attempting to run cuBLAS, but there was no current CUDA context",
)


class GraphedForward:
    """The forward of a module: with gradients, a CUDA graph for each size of batch."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.plain: Forward = module.forward
        self.graphs: dict[torch.Size, Forward] = {}

    def __call__(self, images: Tensor) -> Any:
        if not torch.is_grad_enabled():
            return self.plain(images)
        if images.shape not in self.graphs:
            self.graphs[images.shape] = self._capture(images)
        return self.graphs[images.shape](images)

    def _capture(self, images: Tensor) -> Forward:
        """Capture a pass for batches like `images`; restore what its trial runs change."""
        buffers = [(buffer, buffer.clone()) for buffer in self.module.buffers()]
        state = torch.cuda.get_rng_state(images.device)
        lower = torch.get_autocast_dtype("cuda")
        # a cached copy of a weight would be replayed after the weight has changed
        autocast = torch.autocast("cuda", lower, torch.is_autocast_enabled("cuda"), cache_enabled=False)
        try:
            with autocast, warnings.catch_warnings():
                for message in EXPECTED:
                    warnings.filterwarnings("ignore", message)
                warnings.filterwarnings("error", "The CUDA Graph is empty")
                graph: Forward = torch.cuda.make_graphed_callables(
                    _PlainPass(self.module, self.plain), (images.clone(),), allow_unused_input=True
                )
        except (RuntimeError, AssertionError, AttributeError, TypeError, UserWarning) as error:
            network = self.module.model if isinstance(self.module, TappedModel) else self.module
            name, cause = type(network).__name__, str(error).partition("\n")[0]
            message = f"cuda_graphs=true: a GPU cannot capture {name} ({cause}): use cuda_graphs=false"
            raise MachineError(message) from error
        torch.cuda.set_rng_state(state, images.device)
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        return graph


class _PlainPass(nn.Module):
    """A module with its parameters under its plain forward, for torch to capture."""

    def __init__(self, module: nn.Module, forward: Forward) -> None:
        super().__init__()
        self.module, self.plain = module, forward

    def forward(self, images: Tensor) -> Any:
        return self.plain(images)


def capture_passes(module: nn.Module) -> None:
    """Have a module on a GPU trained by captured passes, unless it is already.

    Its first pass with gradients raises `MachineError` where a GPU cannot capture it.
    """
    if not isinstance(module.forward, GraphedForward):
        module.forward = GraphedForward(module)  # as torch itself does it


def release_passes(module: nn.Module) -> None:
    """Have a module run layer by layer again.

    Graphs are freed here, not by a later garbage collection: in a forked process, which loads images, that would
    fail for want of a GPU.
    """
    if isinstance(module.forward, GraphedForward):
        del module.forward
        gc.collect()
