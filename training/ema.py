"""The moving average of what trains, torch's own: theta' <- decay * theta' + (1 - decay) * theta after each step.

Polyak & Juditsky (1992) average all steps alike, this one the last 1 / (1 - decay) or so; the first step's weights
are where it begins.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class Averaged(nn.Module):
    """What of an objective is averaged, the same tensors under flat names.

    Those are all parameters that train, and the floating-point buffers of the network and of batch norms beside
    it. Banks are no weights but memories of features, and stay as they are.
    """

    def __init__(self, objective: nn.Module) -> None:
        super().__init__()
        for name, parameter in objective.named_parameters():
            if parameter.requires_grad:
                self.register_parameter(_flat(name), parameter)
        for place, module in objective.named_modules():
            if f"{place}.".startswith("model.") or isinstance(module, _NormBase):
                for name, buffer in module.named_buffers(place, recurse=False):
                    if buffer.is_floating_point():
                        self.register_buffer(_flat(name), buffer)


def _flat(name: str) -> str:
    return name.replace(".", "/")  # torch takes no dots


class Average:
    """The average of an objective's weights, beside those that train."""

    def __init__(self, objective: nn.Module, decay: float) -> None:
        self.trained = Averaged(objective)
        self.blend = get_ema_multi_avg_fn(decay)
        self.model = AveragedModel(self.trained, multi_avg_fn=self.blend, use_buffers=True)

    def by_name(self) -> dict[str, Tensor]:
        """Return what is averaged, by its names in the objective."""
        return {name.replace("/", "."): tensor for name, tensor in self.model.module.state_dict().items()}

    def update(self) -> None:
        """Count a step that was made."""
        if self.model.n_averaged == 0:  # a number on the CPU
            self.model.update_parameters(self.trained)
            return
        # as that would do, which has the device wait for this number
        trained, averaged = zip(*self._pairs(), strict=True)
        self.blend(averaged, trained, self.model.n_averaged)
        self.model.n_averaged += 1

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Have the objective hold the average inside, and what trains again afterwards, bit for bit."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for trained, averaged in self._pairs():
            kept = trained.detach().clone()
            trained.copy_(averaged)
            averaged.copy_(kept)

    @torch.no_grad()
    def keep(self) -> None:
        """Have the objective hold the average from now on."""
        for trained, averaged in self._pairs():
            trained.copy_(averaged)

    def _pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        own, others = self.trained.state_dict(keep_vars=True), self.model.module.state_dict(keep_vars=True)
        return ((tensor, others[name]) for name, tensor in own.items())
