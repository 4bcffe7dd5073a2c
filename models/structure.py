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
from models.taps import get_tensor

MOST_WORK = 2e10  # parameters x pixels up to which a network is run where it is
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
Inner = list[tuple[str, nn.Module]]


@dataclass(frozen=True)
class Passed:
    """One image on its way through a network: what each module gave last, and what the network gave."""

    outputs: dict[str, tuple[Node, torch.Size]]  # module's name -> the node behind its tensor, and its shape
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
    outputs: dict[str, tuple[Node, torch.Size]] = {}

    def note(name: str, module: nn.Module, inputs: object, output: object) -> None:
        outputs.pop(name, None)
        tensor = get_tensor(output)
        if isinstance(tensor, Tensor) and tensor.grad_fn is not None:
            outputs[name] = tensor.grad_fn, tensor.shape

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


@dataclass(frozen=True)
class Structure:
    """What one image through a network has shown of it, as names of modules."""

    head: str  # the classifier
    blocks: list[str]  # residual (or encoder, or inception) blocks on the trunk, in order; empty without
    before_last: str | None  # behind which the last block begins, or the last stage where there are no blocks
    stages: list[str]  # the last module at each size of map; each block where there are no maps
    reads_vector: bool  # whether the logits are what the classifier makes of one vector (B, D), nothing behind it


def find_structure(model: nn.Module, image_size: int) -> Structure:
    """Find what a network is made of.

    Raises:
        UserError: images that do not go through it, or no classifier.
    """
    head, layer = classifier(model)
    passed = watch(model, image_size)
    trunk = Trunk(model, head, frozenset(passed.trunk()))
    found = trunk.blocks()
    blocks = [name for name, _ in found] if _repeats(found) else []
    ends = blocks or trunk.stages()
    node, shape = passed.outputs.get(head, (None, ()))
    return Structure(
        head=head,
        blocks=blocks,
        before_last=ends[-2] if len(ends) > 1 else None,
        stages=_find_stages(model, trunk, passed, blocks),
        reads_vector=isinstance(layer, nn.Linear) and len(shape) == 2 and node is passed.logits.grad_fn,
    )


def find_last_layer(model: nn.Module, image_size: int) -> str | None:
    """Return the last linear layer or convolution on the trunk: the classifier, wherever it is defined."""
    passed = watch(model, image_size)
    trunk = passed.trunk()
    layers = [name for name in passed.outputs if name in trunk and isinstance(model.get_submodule(name), Head)]
    return layers[-1] if layers else None


def _find_stages(model: nn.Module, trunk: Trunk, passed: Passed, blocks: list[str]) -> list[str]:
    """Return the last module of the trunk at each size of map, the outermost where several give one tensor.

    Modules within a block are none, nor what lies behind the classifier. Maps of a size at which no block ends (or
    no convolution stands where there are no blocks) are no stage: a stem's, a pooling's.
    """
    last: dict[int, str] = {}
    holds: set[int] = set()
    for name, (_, shape) in passed.outputs.items():
        if name == trunk.head:
            break
        within = any(name.startswith(f"{block}.") for block in blocks)
        if name not in trunk.names or len(shape) != 4 or within:
            continue
        first, second, third = shape[1:]
        side = first if first == second != third else second  # channels come last in some networks
        if last and side > min(last):
            continue  # pooled to a larger size, before a classifier
        last[side] = name
        if name in blocks or (not blocks and isinstance(model.get_submodule(name), nn.Conv2d)):
            holds.add(side)
    return [name for side, name in last.items() if side in holds] or blocks
