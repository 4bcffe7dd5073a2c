"""Files of weights: written whole or not at all, read without unpickling objects."""

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

from errors import UserError, note, warn
from files import write_atomically
from models.whole import damaged_entry

COUNTERS = ("total_ops", "total_params")  # which profilers register as buffers
NAMED = 3  # missing and unknown names that a message holds
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
    """Atomically write a dict of tensors and plain values; a state dict of torch's keeps its metadata."""
    plain = content if isinstance(content, OrderedDict) else dict(content)
    write_atomically(path, lambda file: torch.save(plain, file))


def load(path: Path) -> dict[str, Any]:
    """Read a dict of tensors and plain values onto the CPU.

    Raises:
        UserError: no such file, one that is no such dict, or one that is not as it was written.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is no file: name a file of weights")
    _check_sums(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a foreign pickle protocol; the error says enough
            with safe_globals(HARMLESS):
                content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # bytes that are no weights make the unpickler fail in any way at all
        found = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
        cause = f" (it holds an object of {found[1]}, which could run code)" if found else ""
        raise UserError(
            f"{path} is no file of weights that can be read safely{cause}: save a state dict alone"
        ) from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not a state dict")
    return content


def _check_sums(path: Path) -> None:
    damaged = damaged_entry(path)
    if damaged is not None:
        raise UserError(
            f"{path} is damaged ({damaged} is not as it was written): take another copy, or start over"
        )


def previous_of(path: Path) -> Path:
    """Where the checkpoint before the one at `path` is kept."""
    return path.with_suffix(f".previous{path.suffix}")


def save_and_keep(path: Path, content: Mapping[str, Any]) -> None:
    """`save`, keeping what was there as `previous_of(path)`; one of the two is whole at any moment."""
    if path.exists():
        previous = previous_of(path)
        previous.unlink(missing_ok=True)
        try:
            os.link(path, previous)
        except OSError:  # a file system without hard links
            path.replace(previous)
    save(path, content)


def load_newest(path: Path) -> tuple[dict[str, Any], Path]:
    """What `save_and_keep` wrote last and where it was: where that is damaged, the one before it, with a word.

    Raises:
        UserError: neither can be read.
    """
    previous = previous_of(path)
    try:
        return load(path), path
    except UserError as error:
        if not previous.exists():
            raise
        content = load(previous)
        warn(f"{error}; going on from the one before it, {previous.name}")
        return content, previous


def load_weights(model: nn.Module, path: Path, arch: str) -> None:
    """Fill `model` from a state dict, plain or under the key `state_dict`, `model` or `model_state_dict`.

    A prefix that all names share and the counters that profilers leave are dropped with a word.

    Raises:
        UserError: a file that cannot be read, whose names or shapes are not those of the model, or whose values no
            network works with.
    """
    content = load(path)
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(content.get(key), dict):
            content = content[key]
    pairs = [(str(name), part) for name, part in content.items() if isinstance(part, Tensor)]
    tensors = _choose_side(_without_counters(dict(pairs), model, path), model, path)
    weights = _without_prefix(tensors, model, path)
    problem = _odd(pairs) or _misfit(model.state_dict(), weights)
    if problem:
        raise UserError(f"{path} does not fit {arch}: {problem}; give the architecture it was made with")
    unsound = _unsound(model.state_dict(), weights)
    if unsound:
        raise UserError(f"{path}: {unsound}; no network works with these weights")
    model.load_state_dict(_with_metadata(weights, content, model))


def _without_counters(tensors: dict[str, Tensor], model: nn.Module, path: Path) -> dict[str, Tensor]:
    wanted = model.state_dict()
    counters = [name for name in tensors if name.rpartition(".")[2] in COUNTERS and name not in wanted]
    if counters:
        note(f"{path}: left out a profiler's counters ({len(counters)} of {', '.join(COUNTERS)})")
    return {name: value for name, value in tensors.items() if name not in counters}


def _choose_side(tensors: dict[str, Tensor], model: nn.Module, path: Path) -> dict[str, Tensor]:
    """Return the student's or the teacher's tensors of a distiller saved whole: the first that fit the network."""
    found = {}
    for side in SIDES:
        prefixes = {match[0] for name in tensors if (match := re.match(rf"(?:\w+\.)?{side}\.", name))}
        if len(prefixes) == 1:
            prefix = prefixes.pop()
            found[side] = {name.removeprefix(prefix): tensors[name] for name in tensors if name.startswith(prefix)}
    if len(found) < len(SIDES):
        return tensors
    fitting = [side for side, part in found.items() if not _misfit(model.state_dict(), part)]
    side = fitting[0] if fitting else SIDES[0]
    note(f"{path}: holds a student and a teacher, took the {side}")
    return found[side]


def _without_prefix(tensors: dict[str, Tensor], model: nn.Module, path: Path) -> dict[str, Tensor]:
    """The same under the names that follow what all of them start with, where the network's own do not."""
    own, dropped, names = set(model.state_dict()), "", list(tensors)
    while names and not own & set(names):
        first = f"{names[0].partition('.')[0]}."
        if not all(name.startswith(first) for name in names) or any(name.startswith(first) for name in own):
            break
        dropped, names = dropped + first, [name.removeprefix(first) for name in names]
    if not own & set(names):
        return tensors
    if dropped:
        note(f"{path}: left out {dropped!r}, with which all its names begin")
    return dict(zip(names, tensors.values(), strict=True))


def _with_metadata(weights: dict[str, Tensor], given: object, model: nn.Module) -> OrderedDict[str, Tensor]:
    """Weights whose names and shapes are the network's, so that its modules read them as of a version that has
    those: the file's, or the network's own where whoever wrote the file left it out."""
    loaded: Any = OrderedDict(weights)
    own = model.state_dict()
    same_names = isinstance(given, OrderedDict) and list(given) == list(weights)
    loaded._metadata = getattr(given if same_names else own, "_metadata", getattr(own, "_metadata", None))
    complete: OrderedDict[str, Tensor] = loaded
    return complete


def copy_of(model: nn.Module) -> OrderedDict[str, Tensor]:
    """A network's state dict on the CPU, contiguous, sharing no memory, with its metadata."""
    state: Any = model.state_dict()
    copied: Any = OrderedDict(
        (name, tensor.detach().to("cpu", copy=True).contiguous()) for name, tensor in state.items()
    )
    copied._metadata = state._metadata
    complete: OrderedDict[str, Tensor] = copied
    return complete


def _odd(tensors: Sequence[tuple[str, Tensor]]) -> str:
    """What of a file's tensors no network takes: a name that stands twice, a sparse, nested or quantised one."""
    names = [name for name, _ in tensors]
    for name, tensor in tensors:
        if names.count(name) > 1:
            return f"{name} stands twice"
        plain = tensor.layout == torch.strided and not (tensor.is_nested or tensor.is_quantized or tensor.is_meta)
        if not plain:
            return f"{name} is no plain tensor of numbers"
    return ""


def _misfit(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
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


def _unsound(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """What is wrong with weights that fit: no such numbers, not finite where the network is, variance below 0."""
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


def weights_hash(model: nn.Module) -> str:
    """SHA-256 of a model's names, shapes and values, the first 16 hex digits."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
