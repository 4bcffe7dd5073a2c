"""Networks from elsewhere: timm's by `timm/NAME`, and a class or function of one's own by `module:callable`."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from errors import UserError, nearest
from settings.own_code import load_own

TIMM = "timm/"


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
    """Build a network of the user's own by `options`, with `num_classes` and `image_size` where it takes them.

    Raises:
        UserError: it cannot be imported or called, or gives no network.
    """
    make = load_own("arch", arch)
    refuse_taken(arch, options)
    known = {"num_classes": num_classes, "image_size": image_size}
    taken, takes_any = _list_parameters(make)
    strange = [name for name in options if name not in taken and not takes_any]
    if strange:
        names = [name for name in taken if name not in known]
        raise UserError(f"arch_options: {arch} takes no {strange[0]}{nearest(strange[0], names)}")
    # **kwargs are mostly handed on to a class that takes num_classes and knows nothing of image_size
    wanted = taken | {"num_classes"} if takes_any else taken
    given = {name: value for name, value in known.items() if name in wanted}
    try:
        model = make(**given, **options)
    except Exception as error:  # code of one's own may raise anything
        raise UserError(_why_not(arch, error, options)) from error
    if not isinstance(model, nn.Module):
        raise UserError(f"arch {arch} gives a {type(model).__name__}, not a torch.nn.Module")
    if not any(True for _ in model.parameters()):
        raise UserError(f"arch {arch} gives a network without parameters")
    return model


def _list_parameters(make: Callable[..., object]) -> tuple[set[str], bool]:
    """Return the names that a callable takes, and whether it takes any others."""
    try:
        parameters = inspect.signature(make).parameters
    except (ValueError, TypeError):  # some that are written in C have none
        return set(), True
    named = {name for name, parameter in parameters.items() if parameter.kind is not parameter.POSITIONAL_ONLY}
    return named, any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())


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
