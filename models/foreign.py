"""Networks from elsewhere: timm's by `timm/NAME`, and a class or function of one's own by `module:callable`.

Importing a module runs it. Which one is the word of whoever wrote the config, so it is said once; the working
directory is looked in last, behind what is installed and behind this project.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from errors import UserError, nearest, note

TIMM = "timm/"


def is_own(arch: str) -> bool:
    """Whether an arch names a class or function to import."""
    return ":" in arch


def timm_name(arch: str) -> str:
    return arch.removeprefix(TIMM)


def timm_package(arch: str) -> Any:
    """timm itself.

    Raises:
        UserError: it is not installed, or has no network of this name.
    """
    if importlib.util.find_spec("timm") is None:
        raise UserError(f"arch {arch}: timm is not installed: pip install -r requirements-timm.txt")
    timm: Any = importlib.import_module("timm")
    name = timm_name(arch)
    if not timm.is_model(name.partition(".")[0]):
        raise UserError(f"arch {arch}: timm has no such network{nearest(name, timm.list_models())}")
    return timm


def timm_model(
    arch: str, num_classes: int, pretrained: bool, image_size: int, options: Mapping[str, Any]
) -> nn.Module:
    """timm's network of this name, for images of `image_size` where it must be told.

    Raises:
        UserError: no such network, options or tag; weights that could not be downloaded.
    """
    timm = timm_package(arch)
    name = timm_name(arch)
    refuse_taken(arch, options)

    def make(**sized: int) -> nn.Module:
        model: nn.Module = timm.create_model(
            name, pretrained=pretrained, num_classes=num_classes, **{**sized, **options}
        )
        return model

    try:
        try:
            return make(img_size=image_size)
        except TypeError as error:  # networks that take any size have no such argument
            if "img_size" not in str(error):
                raise
            return make()
    except Exception as error:  # whatever a constructor or a download makes of its arguments
        raise UserError(_why_not(arch, error, options)) from None


def own_model(arch: str, num_classes: int, image_size: int, options: Mapping[str, Any]) -> nn.Module:
    """What a callable of one's own gives for `options`, with `num_classes` and `image_size` where it takes them.

    Raises:
        UserError: it cannot be imported or called, or gives no network.
    """
    make = own_callable(arch)
    refuse_taken(arch, options)
    known = {"num_classes": num_classes, "image_size": image_size}
    taken = _parameters(make)
    strange = [name for name in options if taken is not None and name not in taken]
    if strange:
        names = [name for name in taken or () if name not in known]
        raise UserError(f"arch_options: {arch} takes no {strange[0]}{nearest(strange[0], names)}")
    given = {name: value for name, value in known.items() if taken is None or name in taken}
    try:
        model = make(**given, **options)
    except Exception as error:  # code of one's own may raise anything
        raise UserError(_why_not(arch, error, options)) from error
    if not isinstance(model, nn.Module):
        raise UserError(f"arch {arch} gives a {type(model).__name__}, not a torch.nn.Module")
    if not any(True for _ in model.parameters()):
        raise UserError(f"arch {arch} gives a network without parameters")
    return model


def own_callable(arch: str) -> Callable[..., object]:
    """The class or function that an arch names.

    Raises:
        UserError: there is none.
    """
    module_name, _, name = arch.partition(":")
    module = _import(arch, module_name)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            place = getattr(module, "__file__", module_name)
            raise UserError(f"arch {arch}: {place} has no {name}{nearest(name, _callables(module))}")
        found = getattr(found, part)
    if not callable(found):
        raise UserError(f"arch {arch}: {name} is a {type(found).__name__}, name a class or a function")
    own: Callable[..., object] = found
    return own


def code_of(arch: str) -> str:
    """Digest of the file of a class or function of one's own, empty for other networks: its code is part of what a
    network gives."""
    if not is_own(arch):
        return ""
    place = getattr(_import(arch, arch.partition(":")[0]), "__file__", None)
    return hashlib.sha256(Path(place).read_bytes()).hexdigest()[:16] if place else ""


@cache
def _import(arch: str, name: str) -> ModuleType:
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)
    if not all(part.isidentifier() for part in name.split(".")):
        raise UserError(f"arch {arch}: write package.module:callable, a module as `import` takes it")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        asked = error.name is not None and f"{name}.".startswith(f"{error.name}.")
        where = f"neither installed nor in {here}" if asked else f"which {name} imports, is not installed"
        raise UserError(f"arch {arch}: no module {error.name}, {where}") from None
    except Exception as error:  # code of one's own may raise anything
        raise UserError(f"arch {arch}: importing {name} raised {_told(error)}") from error
    note(f"arch {arch}: imported {module.__file__ or name}, which is code of your own")
    return module


def _callables(module: ModuleType) -> list[str]:
    return [name for name, value in vars(module).items() if callable(value)]


def _parameters(make: Callable[..., object]) -> set[str] | None:
    """Names that a callable takes, None where it takes any."""
    try:
        parameters = inspect.signature(make).parameters
    except (ValueError, TypeError):  # some that are written in C have none
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return None
    return {name for name, parameter in parameters.items() if parameter.kind is not parameter.POSITIONAL_ONLY}


def refuse_taken(arch: str, options: Mapping[str, Any]) -> None:
    """Raise `UserError` for options that the data or other keys decide."""
    taken = sorted({"num_classes", "image_size", "img_size", "pretrained", "weights"} & set(options))
    if taken:
        raise UserError(f"arch_options of {arch}: {taken[0]} follows from the data and other keys, leave it out")


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _why_not(arch: str, error: Exception, options: Mapping[str, Any]) -> str:
    given = f" with arch_options {dict(options)}" if options else ""
    return f"arch {arch}{given} cannot be built: {_told(error)}"


def logits_alone(model: nn.Module) -> nn.Module:
    """Have a network whose output has `.logits` (auxiliary ones beside them, Hugging Face's) give those alone."""
    model.register_forward_hook(_logits_of)
    return model


def _logits_of(model: nn.Module, inputs: object, output: Any) -> Any:
    logits = getattr(output, "logits", None)
    return logits if isinstance(logits, Tensor) else None
