"""The classifier of a network: a linear layer or a convolution over the last map."""

from __future__ import annotations

from typing import cast

from torch import nn

from errors import UserError

Head = nn.Linear | nn.Conv2d
NAMED = "classifier_name"  # attribute of a network whose classifier is not the last linear layer it defines


def find_classifier(model: nn.Module) -> tuple[str, Head]:
    """Return the name and the layer of the classifier, the head of a stage.

    It is the layer given to `name_classifier`, otherwise the last linear layer that the network defines, otherwise
    its last convolution.

    Raises:
        UserError: the network has neither.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, Head)}
    if not layers:
        raise UserError(f"{type(model).__name__} has no linear layer and no convolution, choose another arch")
    linear = [name for name, module in layers.items() if isinstance(module, nn.Linear)]
    name = getattr(model, NAMED, None) or (linear or list(layers))[-1]
    return name, layers[name]


def name_classifier(model: nn.Module, name: str) -> None:
    """Have `find_classifier` return the layer of this name."""
    setattr(model, NAMED, name)


def count_outputs(head: Head) -> int:
    """Return the number of classes of a classifier."""
    return head.out_features if isinstance(head, nn.Linear) else head.out_channels


def replace_classifier(model: nn.Module, num_classes: int) -> None:
    """Replace the classifier by a new one unless it has `num_classes` outputs."""
    name, head = find_classifier(model)
    if count_outputs(head) == num_classes:
        return
    new: Head
    if isinstance(head, nn.Linear):
        new = nn.Linear(head.in_features, num_classes)
    else:
        kernel, stride = cast("tuple[int, int]", head.kernel_size), cast("tuple[int, int]", head.stride)
        new = nn.Conv2d(
            head.in_channels, num_classes, kernel, stride, padding=cast("tuple[int, int]", head.padding)
        )
    model.set_submodule(name, new)
