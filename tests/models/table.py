"""All of torchvision's classifiers as students: `python -m tests.models.table [NAME ...]` prints a line for each.

A network of up to 8 million parameters is trained for a step of each kind; a larger one is followed on the meta
device, where autograd says what depends on what, and no value is computed.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torchvision.models
from torch import Tensor, nn
from torchvision.models import list_models

from models.heads import classifier
from models.layout import Layout, infer_layout
from models.sizes import Weightless, build_for
from models.taps import TappedModel
from models.zoo import build_model, count_parameters
from settings.stages import Part

CLASSES = 5
LARGE = 8_000_000  # parameters
MODES: tuple[Part, ...] = ("features", "head", "last_block", "all")
SIZES = {"maxvit_t": 224, "inception_v3": 96, "vit_h_14": 56}  # pixels a side of those that 64 do not go through


@dataclass(frozen=True)
class Row:
    """What was found of one network."""

    arch: str
    size: int
    parameters: int
    on_meta: bool
    taps: list[str]  # places of penultimate and last
    shapes: list[tuple[int, ...]]
    stages: list[str]
    without_gradient: list[str]  # features that a loss at both taps gives none
    trained: dict[Part, float]  # share of the parameters that a stage trains
    wrong: dict[Part, list[str]]  # parameters that moved and should not, or the other way round
    untrained: float  # share that neither features nor the head train, the least that two stages do
    reads_vector: bool

    @property
    def faults(self) -> list[str]:
        found = [f"no gradient: {name}" for name in self.without_gradient]
        found += [f"{mode}: {name}" for mode, names in self.wrong.items() for name in names]
        return [*found, f"{100 * self.untrained:.1f} % untrained"] if self.untrained else found


def choose_stem(arch: str) -> str:
    return "imagenet" if arch.startswith("vgg") else "cifar"  # torchvision's vgg


def network(arch: str, size: int) -> nn.Module:
    """A network with weights, or on the meta device where it is large."""
    with Weightless():
        model = build_model(arch, CLASSES, stem=choose_stem(arch), image_size=size)
    if count_parameters(model) > LARGE:
        return model.to("meta")
    torch.manual_seed(0)
    return build_for(lambda side: build_model(arch, CLASSES, stem=choose_stem(arch), image_size=side), size)


def share(layout: Layout, names: Iterable[str]) -> float:
    """Share of a network's parameters that some make up, in 0..1."""
    return layout.count(names) / count_parameters(layout.model)


def leave_untrained(layout: Layout, train: Part, taps: Iterable[str] = ("penultimate", "last")) -> set[str]:
    """Parameters that the logits depend on and that neither features up to `taps` nor a second stage trains."""
    places = [layout.place(tap) for tap in taps]
    trained = {name for part in ("features", train) for name in layout.part(part, places)[0]}
    return set(layout.reached([])) - trained


def examine(arch: str) -> Row:
    size = SIZES.get(arch, 64)
    model = network(arch, size)
    layout = infer_layout(copy.deepcopy(model), size)
    places = [layout.place(tap) for tap in ("penultimate", "last")]
    parameter = next(model.parameters())
    torch.manual_seed(0)
    images = torch.randn(4, 3, size, size, device=parameter.device)
    parts = {mode: layout.part(mode, places)[0] for mode in MODES}
    return Row(
        arch,
        size,
        count_parameters(model),
        parameter.is_meta,
        places,
        [layout.shape(place) for place in places],
        layout.structure.stages,
        without_gradient(model, TappedModel(model, places), images),
        {mode: share(layout, part) for mode, part in parts.items()},
        {mode: moved_wrongly(model, part, images) for mode, part in parts.items() if mode != "features"},
        share(layout, leave_untrained(layout, "head")),
        layout.structure.reads_vector,
    )


def without_gradient(model: nn.Module, tapped: TappedModel, images: Tensor) -> list[str]:
    """Feature parameters that a loss at both taps gives no gradient, or one of zeros."""
    model.zero_grad()
    tapped.eval()
    for module in model.modules():  # by their first statistics what a deep network passes on shrinks to nothing
        module.train(isinstance(module, nn.modules.batchnorm._BatchNorm))
    taps = tapped(images).taps
    torch.stack([(tap * torch.randn_like(tap)).square().sum() for tap in taps]).sum().backward()
    head = {id(parameter) for parameter in classifier(model)[1].parameters()}
    assert all(parameter.grad is None for parameter in classifier(model)[1].parameters())
    return [name for name, p in model.named_parameters() if id(p) not in head and not reached(p)]


def reached(parameter: nn.Parameter) -> bool:
    grad = parameter.grad
    return grad is not None and (grad.is_meta or bool(grad.any()))


def moved_wrongly(model: nn.Module, part: Iterable[str], images: Tensor) -> list[str]:
    """Names of parameters that a step on the logits moves, not being in `part`, or leaves, being there."""
    classifier(model)[1].reset_parameters()  # some begin at zero, which lets nothing through
    wanted = set(part)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in wanted)
    model.zero_grad()
    logits = model(images)
    assert logits.shape == (len(images), CLASSES)
    logits.square().sum().backward()
    model.requires_grad_(True)
    return [name for name, p in model.named_parameters() if reached(p) != (name in wanted)]


def main(names: list[str]) -> int:
    failed = 0
    print("arch  side  parameters  where  taps  shapes  head  last_block  untrained  stages  seconds", flush=True)
    chosen = names or list_models(module=torchvision.models)
    for arch in chosen:
        start = time.perf_counter()
        row = examine(arch)
        failed += bool(row.faults)
        shares = "  ".join(f"{100 * row.trained[mode]:.1f} %" for mode in ("head", "last_block"))
        print(
            f"{arch}  {row.size}  {row.parameters:,}  {'meta' if row.on_meta else 'real'}  {' '.join(row.taps)}  "
            f"{row.shapes}  {shares}  {100 * row.untrained:.0f} %  {' '.join(row.stages)}  "
            f"{time.perf_counter() - start:.1f}  {'; '.join(row.faults[:3]) or 'ok'}",
            flush=True,
        )
    print(f"{failed} of {len(chosen)} with a fault")
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
