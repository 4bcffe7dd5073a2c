"""Files of weights: written to a temporary name and renamed, read without unpickling objects."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from errors import UserError


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to disk and rename it to `path`."""
    partial = path.with_name(f".{path.name}.partial")
    with open(partial, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def write_text(path: Path, text: str) -> None:
    """Atomically write UTF-8 text."""
    write_atomically(path, lambda file: file.write(text.encode()))


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Atomically write a dict of tensors and plain values."""
    write_atomically(path, lambda file: torch.save(dict(content), file))


def load(path: Path) -> dict[str, Any]:
    """Read a dict of tensors and plain values onto the CPU.

    Raises:
        UserError: no such file, or one that is no such dict.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError):
        raise UserError(f"{path} is no file of weights that can be read safely: save a state dict") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not a state dict")
    return content


def load_weights(model: nn.Module, path: Path, arch: str) -> None:
    """Fill `model` from a state dict, plain or under the key `state_dict`, `model` or `model_state_dict`.

    Raises:
        UserError: a file that cannot be read, or whose names or shapes are not those of the model.
    """
    content = load(path)
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(content.get(key), dict):
            content = content[key]
    weights = {name.removeprefix("module."): value for name, value in content.items() if isinstance(value, Tensor)}
    problem = _misfit(model.state_dict(), weights)
    if problem:
        raise UserError(f"{path} does not fit {arch}: {problem}; give the architecture it was made with")
    model.load_state_dict(weights)


def _misfit(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    missing = [name for name in wanted if name not in given]
    strange = [name for name in given if name not in wanted]
    if missing or strange:
        examples = [f"lacks {missing[0]}"] * bool(missing) + [f"has {strange[0]}"] * bool(strange)
        return f"it {' and '.join(examples)} ({len(missing)} missing, {len(strange)} unknown)"
    for name, tensor in wanted.items():
        if tensor.shape != given[name].shape:
            return f"{name} is {tuple(given[name].shape)}, not {tuple(tensor.shape)}"
    return ""


def file_hash(path: Path) -> str:
    """SHA-256 of a file, the first 16 hex digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()[:16]


def weights_hash(model: nn.Module) -> str:
    """SHA-256 of a model's names, shapes and values, the first 16 hex digits."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
