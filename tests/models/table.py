"""All of torchvision's classifiers as students: `python -m tests.models.table [NAME ...]` prints a line for each.

A network of up to 8 million parameters is trained for a step of each kind; a larger one is followed on the meta
device, where autograd says what depends on what, and no value is computed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torchvision.models
from torch import Tensor, nn
from torchvision.models import list_models

from models.heads import classifier
from models.parts import Trained, part_of, share_of, untrained_by_both
from models.sizes import Weightless, build_for
from models.structure import reads_features
from models.taps import TappedModel, check_order, default_taps
from models.zoo import build_model, count_parameters

CLASSES = 5
LARGE = 8_000_000  # parameters
MODES: tuple[Trained, ...] = ("head", "last_block", "all")
SIZES = {"maxvit_t": 224, "inception_v3": 96, "vit_h_14": 56}  # pixels a side of those that 64 do not go through


@dataclass(frozen=True)
class Row:
    """What was found of one network."""

    arch: str
    size: int
    parameters: int
    on_meta: bool
    taps: list[str]
    dims: list[int]
    without_gradient: list[str]  # features that stage 1 gives none
    trained: dict[Trained, float]  # share of the parameters that stage 2 trains
    wrong: dict[Trained, list[str]]  # parameters that moved and should not, or the other way round
    untrained: float  # share that neither stage trains where stage 2 trains the head alone, the least it can
    reads_features: bool

    @property
    def faults(self) -> list[str]:
        found = [f"no gradient: {name}" for name in self.without_gradient]
        found += [f"{mode}: {name}" for mode, names in self.wrong.items() for name in names]
        return [*found, f"{100 * self.untrained:.1f} % untrained"] if self.untrained else found


def network(arch: str, size: int) -> nn.Module:
    """A network with weights, or on the meta device where it is large."""
    with Weightless():
        model = build_model(arch, CLASSES, image_size=size)
    if count_parameters(model) > LARGE:
        return model.to("meta")
    torch.manual_seed(0)
    return build_for(lambda side: build_model(arch, CLASSES, image_size=side), size)


def examine(arch: str) -> Row:
    size = SIZES.get(arch, 64)
    model = network(arch, size)
    taps = default_taps(model, size)
    tapped = TappedModel(model, taps)
    parameter = next(model.parameters())
    torch.manual_seed(0)
    images = torch.randn(4, 3, size, size, device=parameter.device)
    parts = {mode: part_of(model, mode, taps, size).parameters for mode in MODES}
    row = Row(
        arch,
        size,
        count_parameters(model),
        parameter.is_meta,
        taps,
        tapped.tap_dims(size),
        without_gradient(model, tapped, images),
        {mode: share_of(part, model) for mode, part in parts.items()},
        {mode: moved_wrongly(model, part, images) for mode, part in parts.items()},
        share_of(untrained_by_both(model, taps, "head", size), model),
        reads_features(model, size),
    )
    check_order(model, taps, size)
    return row


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


def moved_wrongly(model: nn.Module, part: Iterable[nn.Parameter], images: Tensor) -> list[str]:
    """Names of parameters that a step of stage 2 moves, not being in `part`, or leaves, being there."""
    classifier(model)[1].reset_parameters()  # some begin at zero, which lets nothing through
    wanted = {id(parameter) for parameter in part}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in wanted)
    model.zero_grad()
    logits = model(images)
    assert logits.shape == (len(images), CLASSES)
    logits.square().sum().backward()
    model.requires_grad_(True)
    return [name for name, p in model.named_parameters() if reached(p) != (id(p) in wanted)]


def main(names: list[str]) -> int:
    failed = 0
    print("arch  side  parameters  where  taps  dims  head  last_block  untrained  seconds", flush=True)
    chosen = names or list_models(module=torchvision.models)
    for arch in chosen:
        start = time.perf_counter()
        row = examine(arch)
        failed += bool(row.faults)
        shares = "  ".join(f"{100 * row.trained[mode]:.1f} %" for mode in ("head", "last_block"))
        print(
            f"{arch}  {row.size}  {row.parameters:,}  {'meta' if row.on_meta else 'real'}  {' '.join(row.taps)}  "
            f"{row.dims}  {shares}  {100 * row.untrained:.0f} %  {time.perf_counter() - start:.1f}  "
            f"{'; '.join(row.faults[:3]) or 'ok'}",
            flush=True,
        )
    print(f"{failed} of {len(chosen)} with a fault")
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
