"""Networks from elsewhere: `timm/NAME`, and the user's own `module:callable`."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, get_type_hints

from torch import Tensor, nn

from errors import UserError, suggest_nearest
from settings.own_code import load_own

TIMM = "timm/"


def import_timm(arch: str) -> tuple[Any, str]:
    """Return the package timm, and the name in it of a network.

    Raises:
        UserError: it is not installed, or has no network of this name.
    """
    if importlib.util.find_spec("timm") is None:
        raise UserError(f"arch {arch}: timm is not installed: pip install -r requirements-timm.txt")
    timm, name = importlib.import_module("timm"), arch.removeprefix(TIMM)
    if not timm.is_model(name.partition(".")[0]):
        raise UserError(f"arch {arch}: timm has no such network{suggest_nearest(name, timm.list_models())}")
    return timm, name


def build_timm_model(
    arch: str, num_classes: int, pretrained: bool, image_size: int, options: Mapping[str, Any]
) -> nn.Module:
    """Build timm's network of this name, by `image_size` where it takes one.

    Raises:
        UserError: no such network, options or tag; weights that could not be downloaded.
    """
    timm, name = import_timm(arch)
    given = {"pretrained": pretrained, "num_classes": num_classes, **options}
    try:
        try:
            model: nn.Module = timm.create_model(name, **({"img_size": image_size} | given))
        except TypeError as error:  # networks that accept any size have no such argument
            if "img_size" not in str(error):
                raise
            model = timm.create_model(name, **given)
    except Exception as error:  # a constructor or a download may raise anything
        raise UserError(_describe_failure(arch, error, options)) from None
    return model


def build_own_model(arch: str, num_classes: int, image_size: int, options: Mapping[str, Any]) -> nn.Module:
    """Build the user's own network by `options`.

    It also gets `num_classes` and `image_size` where it takes them.

    Raises:
        UserError: it cannot be imported or called, or gives no network.
    """
    make = load_own("arch", arch)
    if not _makes_networks(make):
        raise UserError(f"arch {arch}: it is not called, name a subclass of torch.nn.Module or a function for one")
    known = {"num_classes": num_classes, "image_size": image_size}
    taken, takes_any = _list_parameters(make)
    strange = [name for name in options if name not in taken and not takes_any]
    if strange:
        names = [name for name in taken if name not in known]
        raise UserError(f"arch_options: {arch} takes no {strange[0]}{suggest_nearest(strange[0], names)}")
    # **kwargs are mostly handed on to a class that takes num_classes but no image_size
    wanted = taken | {"num_classes"} if takes_any else taken
    given = {name: value for name, value in known.items() if name in wanted}
    try:
        model = make(**given, **options)
    except Exception as error:  # a user's code may raise anything
        raise UserError(_describe_failure(arch, error, options)) from error
    if not isinstance(model, nn.Module):
        raise UserError(f"arch {arch} gives a {type(model).__name__}, not a torch.nn.Module")
    if not any(True for _ in model.parameters()):
        raise UserError(f"arch {arch} gives a network without parameters")
    return model.float()  # images are float32


def _makes_networks(make: Callable[..., object]) -> bool:
    """Return whether a callable is a network's class, or a function that may give one.

    A function without an annotation may, unless it is Python's own or in C, such as `os.system`.
    """
    while isinstance(make, partial):
        make = make.func
    if inspect.isclass(make):
        return issubclass(make, nn.Module)
    try:
        given = get_type_hints(make).get("return")
    except (NameError, TypeError, AttributeError):  # names that are imported for type checkers alone
        given = None
    if inspect.isclass(given):
        return issubclass(given, nn.Module)
    package = str(getattr(make, "__module__", "")).partition(".")[0]
    return inspect.isroutine(make) and not inspect.isbuiltin(make) and package not in sys.stdlib_module_names


def _list_parameters(make: Callable[..., object]) -> tuple[set[str], bool]:
    """Return the names that a callable takes, and whether it takes any others."""
    try:
        parameters = inspect.signature(make).parameters
    except (ValueError, TypeError):  # some written in C have no signature
        return set(), True
    named = {name for name, parameter in parameters.items() if parameter.kind is not parameter.POSITIONAL_ONLY}
    return named, any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())


def _describe_failure(arch: str, error: Exception, options: Mapping[str, Any]) -> str:
    given = f" with arch_options {dict(options)}" if options else ""
    return f"arch {arch}{given} cannot be built: {type(error).__name__}: {error}"


def extract_logits(model: nn.Module) -> nn.Module:
    """Have a network return only the `.logits` of its output, where it has them."""

    def replace_output(network: nn.Module, inputs: object, output: Any) -> Tensor | None:
        logits = getattr(output, "logits", None)
        return logits if isinstance(logits, Tensor) else None

    model.register_forward_hook(replace_output)
    return model
