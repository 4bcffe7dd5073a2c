"""What a network is made of, found by sending one image through it and looking at what depends on what.

A module's output is on the trunk if all that the logits know of the image passes through it: every path of the
autograd graph from the logits to the image does, and paths are counted. Blocks, stages and the classifier are
modules on the trunk, so no class of any library is named here.
Letters: B batch, C channels, D features, H x W map, T tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from errors import UserError
from models.heads import Head, classifier
from models.inputs import INPUT_ADAPTER

MOST_WORK = 2e10  # parameters x pixels up to which a network is run where it is
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
Inner = list[tuple[str, nn.Module]]


@dataclass(frozen=True)
class Passed:
    """One image on its way through a network: what each module gave last, and what the network gave."""

    outputs: dict[str, tuple[Node, int]]  # module's name -> the node behind its tensor, and that tensor's rank
    logits: Tensor
    image: Tensor

    def trunk(self) -> set[str]:
        """Names of the modules whose output all paths from the logits to the image pass through."""
        root = self.logits.grad_fn
        if root is None:
            return set()
        order = _sorted(root)
        from_root = Counter({root: 1})
        for node in order:
            for follower in _followers(node):
                from_root[follower] += from_root[node]
        to_image: Counter[Node] = Counter()
        for node in reversed(order):
            own = int(getattr(node, "variable", None) is self.image)
            to_image[node] = own + sum(to_image[follower] for follower in _followers(node))
        total = to_image[root]
        return {
            name for name, (node, _) in self.outputs.items() if total and from_root[node] * to_image[node] == total
        }


def _followers(node: Node) -> list[Node]:
    return [follower for follower, _ in node.next_functions if follower is not None]


def _sorted(root: Node) -> list[Node]:
    """All nodes behind `root`, each before those that it leads to."""
    done: list[Node] = []
    seen = {root}
    stack = [(root, iter(_followers(root)))]
    while stack:
        node, rest = stack[-1]
        follower = next((one for one in rest if one not in seen), None)
        if follower is None:
            done.append(node)
            stack.pop()
        else:
            seen.add(follower)
            stack.append((follower, iter(_followers(follower))))
    return done[::-1]


def send(model: nn.Module, count: int, image_size: int, follow: bool = False) -> tuple[Tensor, Any]:
    """Black images (count, 3, image_size, image_size) and what a network in evaluation mode gives for them.

    A large network, or one that is there already, is followed on torch's meta device: sizes are known, nothing is
    computed, the network itself stays where it is. A small one is faster on its own device.

    follow: whether autograd follows from the images on.
    """
    parameter = next(model.parameters())
    work = sum(p.numel() for p in model.parameters()) * image_size**2
    meta = parameter.is_meta or work > MOST_WORK
    images = torch.zeros(
        count, 3, image_size, image_size, device="meta" if meta else parameter.device, requires_grad=follow
    )
    was_training = [module.training for module in model.modules()]
    model.eval()
    try:
        with torch.set_grad_enabled(follow):
            return images, torch.func.functional_call(model, _shadow(model), (images,)) if meta else model(images)
    finally:
        for module, training in zip(model.modules(), was_training, strict=True):
            module.training = training


def _shadow(model: nn.Module) -> dict[str, Tensor]:
    return {
        name: torch.empty_like(value, device="meta", requires_grad=False)
        for name, value in (*model.named_parameters(), *model.named_buffers())
    }


def watch(model: nn.Module, image_size: int) -> Passed:
    """Send one image of `image_size` pixels a side through a network.

    Raises:
        UserError: it does not go through.
    """
    outputs: dict[str, tuple[Node, int]] = {}

    def note(name: str, module: nn.Module, inputs: object, output: object) -> None:
        outputs.pop(name, None)
        if isinstance(output, Tensor) and output.grad_fn is not None:
            outputs[name] = output.grad_fn, output.dim()

    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if name and name != INPUT_ADAPTER:
                hooks.enter_context(module.register_forward_hook(partial(note, name)))
        try:
            image, logits = send(model, 1, image_size, follow=True)
        except Exception as error:  # a network of one's own may raise anything
            raise UserError(f"images of {image_size} pixels do not go through it: {reason(error)}") from None
    return Passed(outputs, logits, image)


def reason(error: Exception) -> str:
    """The first line of an error, with its class where that is all it says."""
    return str(error).partition("\n")[0] or type(error).__name__


@dataclass(frozen=True)
class Trunk:
    """Modules on a network's trunk, with what is asked of them."""

    model: nn.Module
    head: str
    names: frozenset[str]

    def outermost(self, prefix: str, wanted: Callable[[str, nn.Module], bool]) -> Inner:
        """Modules below `prefix` that are `wanted`, none inside another, in the network's order."""
        found: Inner = []
        for child, module in self.model.get_submodule(prefix).named_children():
            name = f"{prefix}.{child}" if prefix else child
            if wanted(name, module):
                found.append((name, module))
            else:
                found += self.outermost(name, wanted)
        return found

    def _holds_head(self, name: str) -> bool:
        return f"{self.head}.".startswith(f"{name}.")

    def is_stage(self, name: str, module: nn.Module) -> bool:
        """Whether it is on the trunk, has weights of a layer, and does not hold the classifier."""
        weighted = any(parameter.dim() > 1 for parameter in module.parameters())
        return name in self.names and weighted and not self._holds_head(name)

    def is_block(self, name: str, module: nn.Module) -> bool:
        """Whether it is a stage with a forward of its own, made of other modules."""
        composed = not isinstance(module, CONTAINERS) and any(True for _ in module.children())
        return composed and self.is_stage(name, module)

    def blocks(self, prefix: str = "") -> Inner:
        """The outermost blocks of a class that comes again; a block whose class does not is opened where there are
        such blocks inside, as in the encoder of a vision transformer."""
        level = self.outermost(prefix, self.is_block)
        count = Counter(type(module) for _, module in level)
        found: Inner = []
        for name, module in level:
            inner = self.blocks(name) if count[type(module)] == 1 else []
            found += inner if _repeats(inner) else [(name, module)]
        return found

    def stages(self) -> list[str]:
        """Where there are no blocks: modules beside the classifier, opened until there are two."""
        level = self.outermost("", self.is_stage)
        beside = self.head.rpartition(".")[0]
        before = [one for one in level if not beside or not one[0].startswith(f"{beside}.")]
        if before and len(before) < len(level):  # the classifier's other layers are the last stage
            return [before[-1][0], level[-1][0]]
        while len(level) == 1:
            level = self.outermost(level[0][0], self.is_stage)
        return [name for name, _ in level]


def _repeats(level: Inner) -> bool:
    count = Counter(type(module) for _, module in level)
    return any(number > 1 for number in count.values())


def trunk_of(model: nn.Module, image_size: int) -> Trunk:
    """The trunk of a network.

    Raises:
        UserError: images that do not go through it, or no classifier.
    """
    return Trunk(model, classifier(model)[0], frozenset(watch(model, image_size).trunk()))


def blocks_of(model: nn.Module, image_size: int) -> list[str]:
    """Names of the residual (or encoder, or inception) blocks on the trunk, in the order of the network."""
    return _block_names(trunk_of(model, image_size))


def _block_names(trunk: Trunk) -> list[str]:
    found = trunk.blocks()
    return [name for name, _ in found] if _repeats(found) else []


def stage_before(model: nn.Module, image_size: int) -> str | None:
    """The module behind which the last block begins, or the last stage where there are no blocks."""
    trunk = trunk_of(model, image_size)
    found = _block_names(trunk) or trunk.stages()
    return found[-2] if len(found) > 1 else None


def last_layer(model: nn.Module, image_size: int) -> str | None:
    """The last layer with weights on the trunk, linear or convolution: the classifier, wherever it is defined."""
    passed = watch(model, image_size)
    trunk = passed.trunk()
    layers = [name for name in passed.outputs if name in trunk and isinstance(model.get_submodule(name), Head)]
    return layers[-1] if layers else None


def reads_features(model: nn.Module, image_size: int) -> bool:
    """Whether the logits are what the classifier makes of one vector (B, D) an image, with nothing behind it."""
    name, head = classifier(model)
    passed = watch(model, image_size)
    node, rank = passed.outputs.get(name, (None, 0))
    return isinstance(head, nn.Linear) and rank == 2 and node is passed.logits.grad_fn
