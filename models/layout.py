"""What a network is made of, inferred once and asked by everyone: classifier, blocks, taps, parts that train.

Everything is a name, so it holds for every instance of the network. Names are found on a copy on torch's meta
device, on which sizes are followed and nothing is computed; what depends on what is asked of autograd.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from errors import UserError, nearest
from models.structure import Structure, find_structure
from models.taps import INPUT, MAP, TappedModel, on_tap
from settings.stages import Part


@dataclass(frozen=True)
class Trained:
    """What a stage trains of a network: parameters, and modules that are in training mode with them."""

    parameters: list[nn.Parameter]
    modules: list[nn.Module]


@dataclass(frozen=True)
class Layout:
    """Names in a network.

    Args:
        model: on the meta device, in evaluation mode.
        image_size: side in pixels of the images it is given.
        structure: what it is made of.
        own_taps: places by name, of the config.
    """

    model: nn.Module
    image_size: int
    structure: Structure
    own_taps: dict[str, str] = field(default_factory=dict)
    _reached: dict[tuple[str, ...], frozenset[str]] = field(default_factory=dict, repr=False)
    _shapes: dict[str, tuple[int, ...]] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """The network's class."""
        return type(self.model).__name__

    @cached_property
    def taps(self) -> dict[str, str]:
        """Places by name; the config's come before those that are found."""
        found = {"last": f"{self.structure.head}{INPUT}", "features": f"{self.structure.head}{INPUT}"}
        if self.structure.before_last is not None:
            found["penultimate"] = self.structure.before_last
        found |= {f"stage{number}": name for number, name in enumerate(self.structure.stages, start=1)}
        if self.structure.stages:
            found["last_stage"] = self.structure.stages[-1]
        return found | self.own_taps

    def place(self, tap: str, as_map: bool = False) -> str:
        """Return the place of a tap.

        Raises:
            UserError: the network has no tap of this name.
        """
        if tap not in self.taps:
            if tap == "penultimate":
                raise UserError(
                    f"{self.name} has no blocks or stages: name a module with taps: {{penultimate: NAME}}"
                )
            known = ", ".join(self.taps)
            raise UserError(
                f"{self.name} has no tap {tap}{nearest(tap, self.taps)}: there are {known}; taps names more"
            )
        return f"{self.taps[tap]}{MAP if as_map else ''}"

    def shape(self, place: str) -> tuple[int, ...]:
        """Return the shape that a place has for one image: (C,), or (C, H, W) for a map."""
        if place not in self._shapes:
            self._shapes[place] = TappedModel(self.model, [place]).tap_shapes(self.image_size)[0]
        return self._shapes[place]

    def check_taps(self) -> None:
        """Raise `UserError` for a tap of the config that is no module, is never run, or is the classifier."""
        for name, place in self.own_taps.items():
            if place == self.structure.head:
                raise UserError(f"taps.{name}: {place} is the classifier, name what it reads: {place}{INPUT}")
            self.shape(place)

    def reached(self, places: Sequence[str]) -> frozenset[str]:
        """Return names of the parameters that some of `places` depends on, or the logits where there are none."""
        key = tuple(places)
        if key not in self._reached:
            self._reached[key] = _find_reached(self.model, places, self.image_size)
        return self._reached[key]

    def part(self, train: Part, places: Sequence[str] = ()) -> tuple[list[str], list[str]]:
        """Return names of the parameters that a stage trains, and of the modules in training mode with them.

        The last block is all that stands behind the block before the last: the last block itself, and layers
        between it and the head, as mobilenets have them.

        Args:
            train: what of the network.
            places: of the losses' taps, which "features" means all parameters of.

        Raises:
            UserError: `last_block` where nothing stands between the block before the last and the head.
        """
        head, everything = self.structure.head, [name for name, _ in self.model.named_parameters()]
        if train == "all":
            return everything, [""]
        if train == "features":
            reached = self.reached(places)
            return [name for name in everything if name in reached], [""]
        if train == "head":
            return [name for name in everything if name.startswith(f"{head}.")], [head]
        blocks = self.structure.blocks
        start = blocks[-2] if len(blocks) > 1 else self.place("penultimate")
        before, needed = self.reached([start]), self.reached([])
        behind = [name for name in everything if name in needed and name not in before]
        if all(name.startswith(f"{head}.") for name in behind):
            raise UserError(f"train: last_block: nothing stands between {start} and the head, use train: head")
        return behind, self._modules_after(start)

    def find_part(self, model: nn.Module, train: Part, places: Sequence[str] = ()) -> Trained:
        """Return the part of one instance of the network, as `part`."""
        parameters, modules = self.part(train, places)
        by_name = dict(model.named_parameters())
        return Trained([by_name[name] for name in parameters], [model.get_submodule(name) for name in modules])

    def count(self, names: Iterable[str]) -> int:
        """Return the number of values of some parameters."""
        by_name = dict(self.model.named_parameters())
        return sum(by_name[name].numel() for name in names)

    @torch.no_grad()
    def _modules_after(self, place: str) -> list[str]:
        """Return modules without modules of their own that run after a place was read, in order."""
        order: list[str | None] = []  # None is the place
        leaves = [(name, module) for name, module in self.model.named_modules() if not list(module.children())]
        hooks = [leaf.register_forward_hook(lambda *_, name=name: order.append(name)) for name, leaf in leaves]
        hooks.append(on_tap(self.model, place, lambda features: order.append(None)))
        self.model.eval()(make_image(self.model, self.image_size))
        for hook in hooks:
            hook.remove()
        last = len(order) - 1 - order[::-1].index(None)
        before = set(order[:last])
        return list(dict.fromkeys(name for name in order[last + 1 :] if name is not None and name not in before))


def infer_layout(model: nn.Module, image_size: int, own_taps: dict[str, str] | None = None) -> Layout:
    """Find what a network is made of. `model` is moved to the meta device afterwards.

    Args:
        model: one instance, of which nothing else is needed.
        image_size: side in pixels of the images it is given.
        own_taps: places by name, of the config.

    Raises:
        UserError: images that do not go through it, or no classifier.
    """
    structure = find_structure(model, image_size)
    layout = Layout(model.to("meta").eval(), image_size, structure, own_taps or {})
    layout.check_taps()
    return layout


def make_image(model: nn.Module, image_size: int) -> Tensor:
    """Return one black image (1, 3, image_size, image_size) where the network is, in its precision."""
    like = next(model.parameters())
    return torch.zeros(1, 3, image_size, image_size, device=like.device, dtype=like.dtype)


def _find_reached(model: nn.Module, places: Sequence[str], image_size: int) -> frozenset[str]:
    named = dict(model.named_parameters())
    wanted = [parameter.requires_grad for parameter in named.values()]
    model.requires_grad_(True)
    with torch.enable_grad():
        out = TappedModel(model, places)(make_image(model, image_size))
        total = torch.stack([features.sum() for features in out.taps or (out.logits,)]).sum()
        reached = (
            torch.autograd.grad(total, list(named.values()), allow_unused=True) if total.requires_grad else ()
        )
    for parameter, flag in zip(named.values(), wanted, strict=True):
        parameter.requires_grad_(flag)
    return frozenset(name for name, gradient in zip(named, reached, strict=False) if gradient is not None)
