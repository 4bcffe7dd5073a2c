"""Files of weights: written atomically, read without unpickling objects."""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.serialization import safe_globals

from errors import UserError, info, raise_read_failure, warn
from files import write_atomically
from models.whole import find_damaged_entry

COUNTERS = ("total_ops", "total_params")  # buffers that profilers register
NAMED = 3  # missing and unknown names in a message
SIDES = ("student", "teacher")  # of a distiller that was saved whole
SCALAR = import_module("numpy._core.multiarray").scalar
NUMBERS = ("float64", "float32", "int64", "int32", "bool_")
# what trainers write beside the weights: options as a namespace, an accuracy as numpy's scalar; none runs code
HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(getattr(np, name))) for name in NUMBERS),
    *((SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),  # by numpy 1 and 2
]


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Write a dict of tensors and plain values atomically, with its metadata."""
    plain = content if isinstance(content, OrderedDict) else dict(content)
    write_atomically(path, lambda file: torch.save(plain, file))


def load(path: Path) -> dict[str, Any]:
    """Read a dict of tensors and plain values onto the CPU.

    Raises:
        UserError: no such file, a damaged one, or one that holds anything else.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is no file: name a file of weights")
    damaged = find_damaged_entry(path)
    if damaged is not None:
        raise UserError(
            f"{path} is damaged ({damaged} is not as it was written): take another copy, or start over"
        )
    try:
        with warnings.catch_warnings(), safe_globals(HARMLESS):
            warnings.simplefilter("ignore", UserWarning)  # of a foreign pickle protocol; the error says enough
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # bytes that are no weights may raise anything in the unpickler
        raise_read_failure(path, error)
        found = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
        cause = f" (it holds an object of {found[1]}, which could run code)" if found else ""
        raise UserError(
            f"{path} is no file of weights that can be read safely{cause}: save a state dict alone"
        ) from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not a state dict")
    return content


def get_previous_path(path: Path) -> Path:
    """Return where the checkpoint before the one at `path` is kept."""
    return path.with_suffix(f".previous{path.suffix}")


def save_and_keep(path: Path, content: Mapping[str, Any]) -> None:
    """Save, and keep the file before at `get_previous_path(path)`.

    One of the two is whole at any moment.
    """
    if path.exists():
        previous = get_previous_path(path)
        previous.unlink(missing_ok=True)
        try:
            os.link(path, previous)
        except OSError:  # a file system without hard links
            path.replace(previous)
    save(path, content)


def load_newest(path: Path) -> tuple[dict[str, Any], Path]:
    """Load the newest whole file of `save_and_keep`, and return its path.

    A damaged newest file gets a warning.

    Raises:
        UserError: neither can be read.
    """
    previous = get_previous_path(path)
    try:
        return load(path), path
    except UserError as error:
        if not previous.exists():
            raise
        content = load(previous)
        warn(f"{error}; going on from the one before it, {previous.name}")
        return content, previous


def load_weights(model: nn.Module, path: Path, arch: str) -> None:
    """Fill `model` from a state dict of its own or of another trainer.

    It may stand under the key `state_dict`, `model` or `model_state_dict`. A prefix that all names share and the
    counters that profilers leave are dropped with a message.

    Raises:
        UserError: a file that cannot be read, names or shapes that are not the model's, or values that no network
            works with.
    """
    content = load(path)
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(content.get(key), dict):
            content = content[key]
    wanted = model.state_dict()
    pairs = [(str(name), part) for name, part in content.items() if isinstance(part, Tensor)]
    weights = _drop_prefix(_choose_side(_drop_counters(dict(pairs), wanted, path), wanted, path), wanted, path)
    problem = _find_odd_tensor(pairs) or _find_misfit(wanted, weights)
    if problem:
        raise UserError(f"{path} does not fit {arch}: {problem}; give the architecture it was made with")
    unsound = _find_unsound_values(wanted, weights)
    if unsound:
        raise UserError(f"{path}: {unsound}; no network works with these weights")
    loaded: Any = OrderedDict(weights)
    # modules read weights by the version in the metadata: the file's, or the network's own where the file has none
    is_state_dict = isinstance(content, OrderedDict) and list(content) == list(weights)
    own: Any = wanted
    loaded._metadata = getattr(content, "_metadata", own._metadata) if is_state_dict else own._metadata
    model.load_state_dict(loaded)


def _drop_counters(tensors: dict[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    counters = [name for name in tensors if name.rpartition(".")[2] in COUNTERS and name not in wanted]
    if counters:
        info(f"{path}: left out a profiler's counters ({len(counters)} of {', '.join(COUNTERS)})")
    return {name: value for name, value in tensors.items() if name not in counters}


def _choose_side(tensors: dict[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return the side of a distiller saved whole that fits the network."""
    found = {}
    for side in SIDES:
        prefixes = {match[0] for name in tensors if (match := re.match(rf"(?:\w+\.)?{side}\.", name))}
        if len(prefixes) == 1:
            prefix = prefixes.pop()
            found[side] = {name.removeprefix(prefix): tensors[name] for name in tensors if name.startswith(prefix)}
    if len(found) < len(SIDES):
        return tensors
    fitting = [side for side, part in found.items() if not _find_misfit(wanted, part)]
    side = fitting[0] if fitting else SIDES[0]
    info(f"{path}: holds a student and a teacher, took the {side}")
    return found[side]


def _drop_prefix(tensors: dict[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Drop what all names start with, unless the network's own names do too."""
    dropped, names = "", list(tensors)
    while names and not wanted.keys() & set(names):
        first = f"{names[0].partition('.')[0]}."
        if not all(name.startswith(first) for name in names) or any(name.startswith(first) for name in wanted):
            break
        dropped, names = dropped + first, [name.removeprefix(first) for name in names]
    if not wanted.keys() & set(names):
        return tensors
    if dropped:
        info(f"{path}: left out {dropped!r}, with which all its names begin")
    return dict(zip(names, tensors.values(), strict=True))


def _find_odd_tensor(tensors: Sequence[tuple[str, Tensor]]) -> str:
    """Return a name that stands twice, or a sparse, nested or quantised tensor."""
    names = [name for name, _ in tensors]
    for name, tensor in tensors:
        if names.count(name) > 1:
            return f"{name} stands twice"
        is_plain = tensor.layout == torch.strided and not (
            tensor.is_nested or tensor.is_quantized or tensor.is_meta
        )
        if not is_plain:
            return f"{name} is no plain tensor of numbers"
    return ""


def _find_misfit(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """Return the names or the shape that are not the network's."""
    missing = [name for name in wanted if name not in given]
    strange = [name for name in given if name not in wanted]
    if missing or strange:
        examples = [f"lacks {', '.join(missing[:NAMED])}"] if missing else []
        examples += [f"has {', '.join(strange[:NAMED])}"] if strange else []
        return f"it {' and '.join(examples)} ({len(missing)} missing, {len(strange)} unknown)"
    for name, tensor in wanted.items():
        if tensor.shape != given[name].shape:
            return f"{name} is {tuple(given[name].shape)}, not {tuple(tensor.shape)}"
    return ""


def _find_unsound_values(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """Return a tensor of another type, with NaN or infinity, or a negative variance."""
    for name, tensor in given.items():
        dtype = wanted[name].dtype
        if dtype.is_floating_point != tensor.is_floating_point() or tensor.is_complex():
            kind = "complex" if tensor.is_complex() else str(tensor.dtype).removeprefix("torch.")
            return f"{name} holds {kind} numbers"
        if dtype.is_floating_point and not torch.isfinite(tensor.to(dtype)).all():
            return f"{name} holds NaN or infinity"
        if name.rpartition(".")[2] == "running_var" and (tensor.to(dtype) < 0).any():
            return f"{name} holds a negative variance"
    return ""


def copy_weights(model: nn.Module) -> OrderedDict[str, Tensor]:
    """Return a copy of a network's state dict on the CPU, with its metadata."""
    state: Any = model.state_dict()
    copied: Any = OrderedDict(
        (name, tensor.detach().to("cpu", copy=True).contiguous()) for name, tensor in state.items()
    )
    copied._metadata = state._metadata
    complete: OrderedDict[str, Tensor] = copied
    return complete


def hash_weights(model: nn.Module) -> str:
    """Return 16 hex digits of the SHA-256 of a model's names, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
