"""A network's pass forward and backward in training as one call of a GPU each, by CUDA graphs.

A layer of a small network keeps a GPU busy for a few microseconds, and asking for it takes a CPU longer than that.
So the kernels of a whole pass are captured at the first batch, and replayed for every further one of its size.
They are the kernels that would have run, in the same order.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from errors import warn
from models.machine import Machine


class Captured:
    """The forward of a module: where gradients are wanted, a graph of it for each size of batch."""

    def __init__(self, module: nn.Module, machine: Machine) -> None:
        self.module, self.machine = module, machine
        self.plain: Callable[[Tensor], Any] = module.forward
        self.graphs: dict[torch.Size, Callable[[Tensor], Any]] = {}

    def __call__(self, images: Tensor) -> Any:
        if not torch.is_grad_enabled():
            return self.plain(images)
        if images.shape not in self.graphs:
            self.graphs[images.shape] = self._capture(images)
        return self.graphs[images.shape](images)

    def _capture(self, images: Tensor) -> Callable[[Tensor], Any]:
        """Passes for batches like `images`, or as before if a GPU cannot; what trying changes is put back."""
        buffers = [(buffer, buffer.clone()) for buffer in self.module.buffers()]
        state = torch.cuda.get_rng_state(images.device)
        autocast = torch.autocast(
            "cuda", self.machine.dtype, enabled=self.machine.dtype != torch.float32, cache_enabled=False
        )  # a kept copy of a weight would be replayed when the weight has changed
        try:
            with autocast, warnings.catch_warnings():  # of torch's own trial passes, which run beside the others
                warnings.simplefilter("ignore")
                graphed: Callable[[Tensor], Any] = torch.cuda.make_graphed_callables(
                    _Pass(self.module, self.plain), (images.clone(),), allow_unused_input=True
                )
            return graphed
        except (RuntimeError, AssertionError) as error:
            with suppress(RuntimeError):  # a GPU names the failed capture once more
                torch.cuda.synchronize(images.device)
            reason = str(error).partition("\n")[0]
            warn(f"{type(self.module).__name__} goes layer by layer, since a GPU cannot capture it ({reason})")
            return self.plain
        finally:
            torch.cuda.set_rng_state(state, images.device)
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)


class _Pass(nn.Module):
    """What is captured: a module by its forward of before, with its parameters."""

    def __init__(self, module: nn.Module, forward: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.module, self.by = module, forward

    def forward(self, images: Tensor) -> Any:
        return self.by(images)


def capture_passes(module: nn.Module, machine: Machine) -> None:
    """Have a module on a GPU trained by captured passes; one that has them already stays as it is."""
    if machine.device.type == "cuda" and not isinstance(module.forward, Captured):
        module.forward = Captured(module, machine)  # as torch itself does it


def release_passes(module: nn.Module) -> None:
    """Have a module run layer by layer again.

    Graphs go at once and not whenever Python collects garbage: a process that begins as a copy of this one, to
    load images, would end by freeing what it has no GPU for.
    """
    if isinstance(module.forward, Captured):
        del module.forward
        gc.collect()
