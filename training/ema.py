"""The exponential moving average (EMA) of the weights.

After each step theta' <- decay * theta' + (1 - decay) * theta, beginning with the first step's weights. Polyak &
Juditsky (1992) average all steps alike; this average covers about the last 1 / (1 - decay).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Average:
    """The average of an objective's weights, beside those that train.

    It covers the parameters that train, and the floating-point buffers of the network and of batch norms beside
    it. Memory banks are no weights and stay as they are.
    """

    def __init__(self, objective: nn.Module, decay: float) -> None:
        self.trained = _find_averaged(objective)  # the objective's own tensors, by name
        self.averaged = {name: tensor.detach().clone() for name, tensor in self.trained.items()}
        self.blend = get_ema_multi_avg_fn(decay)
        self.steps = 0

    @torch.no_grad()
    def update(self) -> None:
        """Count a step that was made."""
        if self.steps == 0:
            _copy(self.trained, self.averaged)
        else:
            self.blend(list(self.averaged.values()), list(self.trained.values()), self.steps)
        self.steps += 1

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Have the objective hold the average inside the context."""
        kept = {name: tensor.detach().clone() for name, tensor in self.trained.items()}
        self.keep()
        try:
            yield
        finally:
            _copy(self.trained, self.averaged)  # the objective may have changed it meanwhile
            _copy(kept, self.trained)

    def keep(self) -> None:
        """Have the objective hold the average from now on."""
        _copy(self.averaged, self.trained)

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.averaged, "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave.

        Raises:
            KeyError, ValueError, TypeError, AttributeError: it does not fit.
        """
        weights, shapes = state["weights"], {name: tensor.shape for name, tensor in self.averaged.items()}
        if {name: tensor.shape for name, tensor in weights.items()} != shapes:
            raise ValueError("an average of other weights")
        _copy(weights, self.averaged)
        self.steps = int(state["steps"])


def _find_averaged(objective: nn.Module) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {
        name: parameter for name, parameter in objective.named_parameters() if parameter.requires_grad
    }
    for place, module in objective.named_modules():
        if f"{place}.".startswith("model.") or isinstance(module, _NormBase):
            buffers = module.named_buffers(place, recurse=False)
            found |= {name: buffer for name, buffer in buffers if buffer.is_floating_point()}
    return found


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    for name, tensor in target.items():
        tensor.copy_(source[name])
