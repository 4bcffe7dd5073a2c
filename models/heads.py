"""The classifier of a network: the layer whose outputs are classes, linear or a convolution over the last map."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from errors import UserError

Head = nn.Linear | nn.Conv2d
NAMED = "classifier_name"  # attribute of a network whose classifier is not its last linear layer by definition


def find_classifier(model: nn.Module) -> tuple[str, Head]:
    """The classifier and its dotted name: what stage 2 calls the head.

    The last linear layer as modules are defined, or the last convolution where there is none, unless the network
    was found to use another one last (`name_classifier`).

    Raises:
        UserError: the network has neither.
    """
    named = getattr(model, NAMED, None)
    if isinstance(named, str):
        module = model.get_submodule(named)
        assert isinstance(module, Head)
        return named, module
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, Head)]
    if not layers:
        raise UserError(f"{type(model).__name__} has no linear layer and no convolution, choose another arch")
    return next((one for one in reversed(layers) if isinstance(one[1], nn.Linear)), layers[-1])


def name_classifier(model: nn.Module, name: str) -> None:
    """Have `classifier` find the layer of this name."""
    setattr(model, NAMED, name)


def count_outputs(head: Head) -> int:
    """Classes of a classifier."""
    return head.out_features if isinstance(head, nn.Linear) else head.out_channels


def replace_classifier(model: nn.Module, num_classes: int) -> None:
    """Put a new classifier of that many classes in the place of one that has another number."""
    name, head = find_classifier(model)
    if count_outputs(head) == num_classes:
        return
    new: Head
    if isinstance(head, nn.Linear):
        new = nn.Linear(head.in_features, num_classes)
    else:
        rest: dict[str, Any] = {"stride": head.stride, "padding": head.padding}
        new = nn.Conv2d(head.in_channels, num_classes, cast("tuple[int, int]", head.kernel_size), **rest)
    setattr(model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2], new)
