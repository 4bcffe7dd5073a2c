"""torch.compile for blocks of a network without taps and classifier.

A compiled part runs as one, so a hook inside it would not be called, or with another step's closure. Parameters
keep their names: `nn.Module.compile` changes only how a module is called, and a copy of it is not compiled.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterable, Iterator

import torch
from torch import nn

from errors import UserError, warn
from models.heads import find_classifier
from models.taps import INPUT, MAP

COMPILERS = ("c++", "g++", "clang++")  # torch needs one on a CPU
MAX_VERSIONS = 64  # of one block's code: by size of map and batch, training or evaluation, with gradient or not


def check_compiler(device: torch.device) -> None:
    """Raise `UserError` where torch has nothing to compile with."""
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            raise UserError("compile=true needs triton on a GPU: install it, or use compile=false")
        return
    named = os.environ.get("CXX")
    if not any(shutil.which(name) for name in ([named] if named else COMPILERS)):
        raise UserError("compile=true needs a C++ compiler on a CPU: install g++, or use compile=false")


def compile_blocks(model: nn.Module, taps: Iterable[str], backend: str = "inductor") -> list[str]:
    """Compile the blocks without taps and classifier, and return their names.

    Compilation happens when a block first runs, and again for other sizes and modes. A network without such blocks
    is left as it is, with a warning.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MAX_VERSIONS)
    places = [*taps, *getattr(model, "observed", ())]
    read = {find_classifier(model)[0], *(place.removesuffix(MAP).removesuffix(INPUT) for place in places)}
    found = dict(_iter_blocks(model, read))
    for block in found.values():
        block.compile(backend=backend)
    if not found:
        warn(f"compile: {type(model).__name__} has no blocks without taps, nothing of it is compiled")
    return list(found)


def _iter_blocks(module: nn.Module, read: set[str], prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield the largest modules of several layers without a name that is read."""
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        is_read = any(one == path or one.startswith(f"{path}.") for one in read)
        if is_read or isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield from _iter_blocks(child, read, f"{path}.")
        elif any(True for _ in child.children()):
            yield path, child
