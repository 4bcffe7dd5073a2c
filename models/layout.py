"""The layout of a network: its taps, and the parameters that a stage trains.

A layout holds only names, so it fits every instance of the network. They are found on the meta device, where
nothing is computed. Autograd tells which parameters a tensor depends on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import nn

from errors import UserError, suggest_nearest
from models.structure import Structure, find_structure
from models.taps import INPUT, MAP, TappedModel, make_black_image, observe_tap
from settings.stages import Part


@dataclass(frozen=True)
class TrainedPart:
    """The parameters that a stage trains, and the modules in training mode with them."""

    parameters: list[nn.Parameter]
    modules: list[nn.Module]


@dataclass(frozen=True)
class Layout:
    """Names of a network's taps, and of the parameters and modules of its parts.

    Args:
        model: on the meta device, in evaluation mode.
        image_size: side of its images in pixels.
        structure: its classifier, blocks and stages.
        own_taps: places by name of the tap, from the config.
    """

    model: nn.Module
    image_size: int
    structure: Structure
    own_taps: dict[str, str] = field(default_factory=dict)
    _reached: dict[tuple[str, ...], frozenset[str]] = field(default_factory=dict, repr=False)
    _shapes: dict[str, tuple[int, ...]] = field(default_factory=dict, repr=False)
    _after: dict[str, list[str]] = field(default_factory=dict, repr=False)  # modules by place

    @property
    def name(self) -> str:
        """The network's class."""
        return type(self.model).__name__

    @cached_property
    def taps(self) -> dict[str, str]:
        """Places by name; the config's override those that are found."""
        found = {"last": f"{self.structure.head}{INPUT}", "features": f"{self.structure.head}{INPUT}"}
        if self.structure.before_last is not None:
            found["penultimate"] = self.structure.before_last
        found |= {f"stage{number}": name for number, name in enumerate(self.structure.stages, start=1)}
        if self.structure.stages:
            found["last_stage"] = self.structure.stages[-1]
        return found | self.own_taps

    def find_place(self, tap: str, as_map: bool = False) -> str:
        """Return the place of a tap.

        Raises:
            UserError: the network has no tap of this name.
        """
        if tap not in self.taps and tap == "penultimate":
            raise UserError(f"{self.name} has no blocks or stages: name a module with taps: {{penultimate: NAME}}")
        if tap not in self.taps:
            known = ", ".join(self.taps)
            hint = suggest_nearest(tap, self.taps)
            raise UserError(f"{self.name} has no tap {tap}{hint}: there are {known}; taps names more")
        return f"{self.taps[tap]}{MAP if as_map else ''}"

    def find_shape(self, place: str) -> tuple[int, ...]:
        """Return the shape at a place for one image: (C,), or (C, H, W) for a map."""
        if place not in self._shapes:
            self._shapes[place] = TappedModel(self.model, [place]).find_tap_shapes(self.image_size)[0]
        return self._shapes[place]

    def check_taps(self) -> None:
        """Raise `UserError` for a tap of the config that cannot be read."""
        for name, place in self.own_taps.items():
            if place == self.structure.head:
                raise UserError(f"taps.{name}: {place} is the classifier, name what it reads: {place}{INPUT}")
            self.find_shape(place)

    def find_reached(self, places: Sequence[str]) -> frozenset[str]:
        """Return the parameters that `places` depend on, or the logits if there are no places."""
        key = tuple(places)
        if key not in self._reached:
            self._reached[key] = _find_dependencies(self.model, places, self.image_size)
        return self._reached[key]

    def find_part_names(self, train: Part, places: Sequence[str] = ()) -> tuple[list[str], list[str]]:
        """Return the names of the parameters that a stage trains, and of modules.

        The modules are those to set to training mode. The last block is everything after the block before it, so
        it includes the layers that mobilenets have between their last block and the head.

        A parameter that the network itself freezes (requires_grad is False) is in no part.

        Args:
            train: the part of the network.
            places: the losses' taps; "features" are all parameters that these depend on.

        Raises:
            UserError: `last_block` of a network that has no parameters between the block before it and the head; a
                part that the network freezes.
        """
        parameters, modules = self._find_all_part_names(train, places)
        kept = [name for name in parameters if name not in self.frozen]
        if parameters and not kept:
            raise UserError(f"train: {train}: {self.name} freezes all of it itself (requires_grad=False)")
        return kept, modules

    @cached_property
    def frozen(self) -> frozenset[str]:
        """Parameters that the network itself freezes."""
        return frozenset(name for name, one in self.model.named_parameters() if not one.requires_grad)

    def _find_all_part_names(self, train: Part, places: Sequence[str]) -> tuple[list[str], list[str]]:
        head, names = f"{self.structure.head}.", [name for name, _ in self.model.named_parameters()]
        if train == "all":
            return names, [""]
        if train == "features":
            reached = self.find_reached(places)
            return [name for name in names if name in reached], [""]
        if train == "head":
            return [name for name in names if name.startswith(head)], [self.structure.head]
        blocks = self.structure.blocks
        start = blocks[-2] if len(blocks) > 1 else self.find_place("penultimate")
        behind = self.find_reached([]) - self.find_reached([start])
        if all(name.startswith(head) for name in behind):
            raise UserError(f"train: last_block: nothing stands between {start} and the head, use train: head")
        return [name for name in names if name in behind], self._find_modules_after(start)

    def find_part(self, model: nn.Module, train: Part, places: Sequence[str] = ()) -> TrainedPart:
        """Return what `find_part_names` names, in one instance of the network."""
        parameters, modules = self.find_part_names(train, places)
        by_name = dict(model.named_parameters())
        return TrainedPart([by_name[name] for name in parameters], [model.get_submodule(name) for name in modules])

    def count_values(self, names: Iterable[str]) -> int:
        """Return how many numbers the named parameters hold."""
        by_name = dict(self.model.named_parameters())
        return sum(by_name[name].numel() for name in names)

    def _find_modules_after(self, place: str) -> list[str]:
        if place not in self._after:
            self._after[place] = self._list_modules_after(place)
        return self._after[place]

    @cached_property
    @torch.no_grad()
    def activations(self) -> int:
        """Count of the numbers that the layers give for one image."""
        sizes: list[int] = []

        def count(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, torch.Tensor):
                sizes.append(output.numel())

        with ExitStack() as hooks:
            for module in self.model.modules():
                if not list(module.children()):
                    hooks.enter_context(module.register_forward_hook(count))
            self.model.eval()(make_black_image(self.model, self.image_size))
        return sum(sizes)

    @torch.no_grad()
    def _list_modules_after(self, place: str) -> list[str]:
        """Return the leaf modules that run only after a place is read, in order."""
        order: list[str] = []  # "" is the place
        with ExitStack() as hooks:
            for name, module in self.model.named_modules():
                if not list(module.children()):
                    hook = module.register_forward_hook(lambda *_, name=name: order.append(name))
                    hooks.enter_context(hook)
            hooks.enter_context(observe_tap(self.model, place, lambda features: order.append("")))
            self.model.eval()(make_black_image(self.model, self.image_size))
        last = len(order) - 1 - order[::-1].index("")
        before = set(order[:last])
        return list(dict.fromkeys(name for name in order[last + 1 :] if name not in before))


def infer_layout(model: nn.Module, image_size: int, own_taps: dict[str, str] | None = None) -> Layout:
    """Find the structure of a network; `model` is moved to the meta device afterwards.

    Raises:
        UserError: its forward fails, it has no classifier, or a tap of the config cannot be read.
    """
    structure = find_structure(model, image_size)
    layout = Layout(model.to("meta").eval(), image_size, structure, own_taps or {})
    layout.check_taps()
    return layout


def _find_dependencies(model: nn.Module, places: Sequence[str], image_size: int) -> frozenset[str]:
    named = dict(model.named_parameters())
    flags = [parameter.requires_grad for parameter in named.values()]
    model.requires_grad_(True)
    with torch.enable_grad():
        out = TappedModel(model, places)(make_black_image(model, image_size))
        total = torch.stack([features.sum() for features in out.taps or (out.logits,)]).sum()
        found = torch.autograd.grad(total, list(named.values()), allow_unused=True) if total.requires_grad else ()
    for parameter, flag in zip(named.values(), flags, strict=True):
        parameter.requires_grad_(flag)
    return frozenset(name for name, gradient in zip(named, found, strict=False) if gradient is not None)
