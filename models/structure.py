"""Classifier, blocks and stages of a network, found by tracing one image.

A module is on the trunk if every path of the autograd graph from the logits to the image passes through its
output. Blocks, stages and the classifier are modules on the trunk, so no class of any library is named here.
Letters: B batch, D features.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from graphlib import TopologicalSorter
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from errors import UserError
from models.heads import Head, find_classifier
from models.inputs import INPUT_ADAPTER
from models.taps import get_tensor

MAX_WORK = 2e10  # parameters x pixels up to which a network runs on its own device
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
NamedModules = list[tuple[str, nn.Module]]


def forward_black_images(
    model: nn.Module, count: int, image_size: int, needs_grad: bool = False
) -> tuple[Tensor, Any]:
    """Send black images through a network, and return them with its output.

    The network is in evaluation mode meanwhile. A large network, or one on the meta device, is followed there:
    shapes are known, nothing is computed, and the network itself stays where it is. A small one is faster on its
    own device.
    """
    parameter = next(model.parameters())
    work = sum(p.numel() for p in model.parameters()) * image_size**2
    on_meta = parameter.is_meta or work > MAX_WORK
    device = "meta" if on_meta else parameter.device
    images = torch.zeros(count, 3, image_size, image_size, device=device, requires_grad=needs_grad)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.set_grad_enabled(needs_grad):
            if not on_meta:
                return images, model(images)
            shadow = {
                name: torch.empty_like(value, device="meta", requires_grad=False)
                for name, value in (*model.named_parameters(), *model.named_buffers())
            }
            return images, torch.func.functional_call(model, shadow, (images,))
    finally:
        for module, is_training in modes:
            module.training = is_training


def describe_error(error: Exception) -> str:
    """Return the first line of an error, or its class where it says nothing."""
    return str(error).partition("\n")[0] or type(error).__name__


@dataclass(frozen=True)
class Trace:
    """One image on its way through a network."""

    outputs: dict[str, tuple[Node, torch.Size]]  # module -> the node behind its last output, and its shape
    logits: Tensor
    image: Tensor

    def find_trunk(self) -> set[str]:
        """Return the modules that every path from the logits to the image goes through."""
        root = self.logits.grad_fn
        if root is None:
            return set()
        graph = _build_graph(root)
        order = list(TopologicalSorter(graph).static_order())  # from the image to the logits
        to_image: Counter[Node] = Counter()  # numbers of paths
        for node in order:
            is_image = getattr(node, "variable", None) is self.image
            to_image[node] = is_image + sum(to_image[earlier] for earlier in graph[node])
        from_logits = Counter({root: 1})
        for node in reversed(order):
            for earlier in graph[node]:
                from_logits[earlier] += from_logits[node]
        total = to_image[root]
        through = {name: from_logits[node] * to_image[node] for name, (node, _) in self.outputs.items()}
        return {name for name, paths in through.items() if total and paths == total}


def _build_graph(root: Node) -> dict[Node, list[Node]]:
    """Return every node behind `root` with those that it was computed from."""
    graph: dict[Node, list[Node]] = {}
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node not in graph:
            graph[node] = [earlier for earlier, _ in node.next_functions if earlier is not None]
            waiting += graph[node]
    return graph


def trace_network(model: nn.Module, image_size: int) -> Trace:
    """Send one image of `image_size` pixels a side through a network.

    Raises:
        UserError: it does not go through.
    """
    outputs: dict[str, tuple[Node, torch.Size]] = {}

    def record(name: str, module: nn.Module, inputs: object, output: object) -> None:
        outputs.pop(name, None)  # a module that runs again stands where it ran last
        tensor = get_tensor(output)
        if isinstance(tensor, Tensor) and tensor.grad_fn is not None:
            outputs[name] = tensor.grad_fn, tensor.shape

    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if name and name != INPUT_ADAPTER:
                hooks.enter_context(module.register_forward_hook(partial(record, name)))
        try:
            image, logits = forward_black_images(model, 1, image_size, needs_grad=True)
        except Exception as error:  # a user's network may raise anything
            message = f"images of {image_size} pixels do not go through it: {describe_error(error)}"
            raise UserError(message) from None
    return Trace(outputs, logits, image)


@dataclass(frozen=True)
class Trunk:
    """The modules on a network's trunk."""

    model: nn.Module
    head: str
    names: set[str]

    def is_stage(self, name: str, module: nn.Module) -> bool:
        """Return whether it is on the trunk, with layers and without the classifier."""
        has_layers = any(parameter.dim() > 1 for parameter in module.parameters())
        return name in self.names and has_layers and not f"{self.head}.".startswith(f"{name}.")

    def is_block(self, name: str, module: nn.Module) -> bool:
        """Return whether it is a stage with a forward of its own, made of other modules."""
        is_composed = not isinstance(module, CONTAINERS) and any(True for _ in module.children())
        return is_composed and self.is_stage(name, module)

    def find_outermost(self, prefix: str, is_wanted: Callable[[str, nn.Module], bool]) -> NamedModules:
        """Return the wanted modules below `prefix`, none inside another, in order."""
        found: NamedModules = []
        for child, module in self.model.get_submodule(prefix).named_children():
            name = f"{prefix}.{child}" if prefix else child
            found += [(name, module)] if is_wanted(name, module) else self.find_outermost(name, is_wanted)
        return found

    def find_blocks(self, prefix: str = "") -> NamedModules:
        """Return the outermost blocks below `prefix`.

        A block whose class comes once is opened where a class comes again inside it, as in the encoder of a vision
        transformer.
        """
        level = self.find_outermost(prefix, self.is_block)
        count = Counter(type(module) for _, module in level)
        found: NamedModules = []
        for name, module in level:
            inner = self.find_blocks(name) if count[type(module)] == 1 else []
            found += inner if _has_repeats(inner) else [(name, module)]
        return found

    def find_parts(self) -> list[str]:
        """Return parts of a network without blocks: modules beside the classifier.

        A single module is opened.
        """
        level = self.find_outermost("", self.is_stage)
        parent = self.head.rpartition(".")[0]
        before = [name for name, _ in level if not parent or not name.startswith(f"{parent}.")]
        if before and len(before) < len(level):  # the classifier's other layers are the last part
            return [before[-1], level[-1][0]]
        while len(level) == 1:
            level = self.find_outermost(level[0][0], self.is_stage)
        return [name for name, _ in level]

    def find_stages(self, trace: Trace, blocks: list[str]) -> list[str]:
        """Return the last module at each size of map.

        It is the outermost where several give one tensor. Modules inside a block or behind the classifier are left
        out. So is a size at which no block ends (no convolution where there are no blocks), such as a stem's.
        """
        last: dict[int, str] = {}
        sides_of_stages: set[int] = set()
        for name, (_, shape) in trace.outputs.items():
            if name == self.head:
                break
            is_inside = any(name.startswith(f"{block}.") for block in blocks)
            if name not in self.names or len(shape) != 4 or is_inside:
                continue
            first, second, third = shape[1:]
            side = first if first == second != third else second  # channels come last in some networks
            if last and side > min(last):
                continue  # pooled to a larger size, before a classifier
            last[side] = name
            if name in blocks or (not blocks and isinstance(self.model.get_submodule(name), nn.Conv2d)):
                sides_of_stages.add(side)
        return [name for side, name in last.items() if side in sides_of_stages] or blocks


def _has_repeats(level: NamedModules) -> bool:
    return len({type(module) for _, module in level}) < len(level)


@dataclass(frozen=True)
class Structure:
    """Names of a network's modules by their role."""

    head: str  # the classifier
    blocks: list[str]  # residual (or encoder, or inception) blocks on the trunk, in order; empty without
    before_last: str | None  # the last block begins behind it, or the last stage where there are no blocks
    stages: list[str]  # the last module at each size of map; each block where there are no maps
    reads_vector: bool  # the logits are the classifier's output for one vector (B, D), nothing behind it


def find_structure(model: nn.Module, image_size: int) -> Structure:
    """Find the classifier, blocks and stages of a network.

    Raises:
        UserError: images do not go through it, or it has no classifier.
    """
    head, layer = find_classifier(model)
    trace = trace_network(model, image_size)
    trunk = Trunk(model, head, trace.find_trunk())
    found = trunk.find_blocks()
    blocks = [name for name, _ in found] if _has_repeats(found) else []
    ends = blocks or trunk.find_parts()
    node, shape = trace.outputs.get(head, (None, ()))
    return Structure(
        head=head,
        blocks=blocks,
        before_last=ends[-2] if len(ends) > 1 else None,
        stages=trunk.find_stages(trace, blocks),
        reads_vector=isinstance(layer, nn.Linear) and len(shape) == 2 and node is trace.logits.grad_fn,
    )


def find_last_layer(model: nn.Module, image_size: int) -> str | None:
    """Return the last linear layer or convolution on the trunk, the classifier."""
    trace = trace_network(model, image_size)
    trunk = trace.find_trunk()
    layers = [name for name in trace.outputs if name in trunk and isinstance(model.get_submodule(name), Head)]
    return layers[-1] if layers else None
