"""Options of losses, read from their constructors: schema, `--help-config` and messages are made from these.

A loss's name is that of its file in `losses/`, or `package.module:Class` for one of the user's own, to which the
section `losses` may give a shorter name: `losses: {mine: {class: my_losses:Cosine, scale: 2}}`. Importing losses
imports torch, so nothing here is called where a config is only read.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterator, Mapping
from functools import cache, reduce
from importlib import import_module
from operator import or_
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

from pydantic import Field, ValidationError, create_model

from errors import UserError, nearest
from settings.own_code import digest_code, is_own, load_own
from settings.schema import Config
from settings.section import Section
from settings.stages import LossUse, Stage

if TYPE_CHECKING:
    from losses.loss import Loss

FOLDER = Path(__file__).resolve().parent.parent / "losses"
CLASS = "class"  # key of the section `losses` for a loss of the user's own
MODELS: dict[type[Loss], type[Section]] = {}


@cache
def list_losses() -> dict[str, type[Loss]]:
    """Return every loss in `losses/` by name: that of the file which defines it."""
    from losses.loss import Loss

    found: dict[str, type[Loss]] = {}
    for path in sorted(FOLDER.glob("[a-z]*.py")):
        module = import_module(f"losses.{path.stem}")
        for one in vars(module).values():
            own = isinstance(one, type) and one.__module__ == module.__name__
            if own and issubclass(one, Loss) and one is not Loss:
                found[path.stem] = one
    return found


def find_loss(name: str, shared: Mapping[str, Any]) -> type[Loss]:
    """Return the class of a loss.

    Args:
        name: as a stage names it.
        shared: the config's section `losses`.

    Raises:
        UserError: there is none, or it is no loss.
    """
    from losses.loss import Loss

    path = str(shared.get(name, {}).get(CLASS, name))
    if not is_own(path):
        known = list_losses()
        if path not in known:
            raise UserError(
                f"losses: there is no {path}{nearest(path, known)} (there are {', '.join(known)}, or "
                "package.module:Class for one of your own)"
            )
        return known[path]
    found = load_own("losses", path)
    if not (isinstance(found, type) and issubclass(found, Loss)):
        raise UserError(f"losses {path}: it is no subclass of losses.loss.Loss")
    return found


def title_of(name: str) -> str:
    """Return what terms of a loss are called: its name, or its class's where that is a path."""
    return name.rpartition(":")[2].rpartition(".")[2].lower() if is_own(name) else name


def find_model(loss: type[Loss]) -> type[Section]:
    """Return what `make_model` makes of a loss, which takes milliseconds, made once."""
    if loss not in MODELS:
        MODELS[loss] = make_model(loss)
    return MODELS[loss]


def make_model(loss: type[Loss]) -> type[Section]:
    """Return the options of a loss as a pydantic model with types, ranges, defaults and descriptions."""
    texts, hints = read_descriptions(loss), get_type_hints(loss.__init__, include_extras=True)
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(loss).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue  # of a loss without a constructor of its own
        if parameter.default is inspect.Parameter.empty:
            raise UserError(f"losses: {loss.__name__} needs a default for its option {name}")
        if name in LossUse.model_fields:
            raise UserError(f"losses: {loss.__name__} has an option {name}, as every use has: rename it")
        kind, default = _with_fields(hints.get(name, Any)), parameter.default
        default = dict(default) if isinstance(default, Mapping) else default
        fields[name] = (kind, Field(default, description=texts.get(name, "")))
    return create_model(loss.__name__, __base__=Section, **fields)


def _with_fields(annotation: Any) -> Any:
    """Return an annotation with ranges as pydantic has them, at whatever depth."""
    from losses.loss import Range

    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        kind = _with_fields(arguments[0])
        for one in arguments[1:]:
            bounds = vars(one) if isinstance(one, Range) else {}
            given = {key: value for key, value in bounds.items() if value is not None}
            kind = Annotated[kind, Field(**given) if isinstance(one, Range) else one]
        return kind
    inner = tuple(_with_fields(one) for one in arguments)
    if inner == arguments:
        return annotation
    return reduce(or_, inner) if origin is UnionType else origin[inner]


def read_descriptions(loss: type[Loss]) -> dict[str, str]:
    """Return what the docstring's `Args` says of each option."""
    _, _, text = inspect.cleandoc(loss.__doc__ or "").partition("Args:\n")
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        match = re.fullmatch(r" {4}(\w+): (.*)", line)
        if match:
            name = match[1]
            found[name] = match[2]
        elif name and line.startswith(" " * 8):
            found[name] += f" {line.strip()}"
        else:
            break
    return found


def list_options() -> Iterator[tuple[str, Any, Any, str]]:
    """Yield (dotted key, annotation, default, description) of every option of every loss."""
    for name, loss in list_losses().items():
        for option, field in make_model(loss).model_fields.items():
            yield f"losses.{name}.{option}", field.annotation, field.default, field.description or ""


def complete_losses(config: Config) -> Config:
    """Check every loss of a config and write out the options that it leaves to their defaults.

    Raises:
        UserError: an unknown loss or option, or a value that does not fit; the message names the key.
    """
    losses = dict(config.losses)
    used = {name for _, stage in list_stages(config) for name in stage.losses}
    for name in sorted({*used, *losses}):
        given = dict(losses.get(name, {}))
        path = given.pop(CLASS, None)
        loss = find_loss(name, config.losses)
        losses[name] = ({} if path is None else {CLASS: path}) | read_options(f"losses.{name}", loss, given)
    completed = Config.model_validate({**config.model_dump(), "losses": losses})
    for key, stage in list_stages(completed):
        for name, use in stage.losses.items():
            make_loss(f"{key}.losses.{name}", name, use.options, completed.losses)
    return completed


def list_stages(config: Config) -> Iterator[tuple[str, Stage]]:
    """Yield every training of a config, the teacher's first, each with its key."""
    yield "teacher", config.teacher_stage
    for name, stages in config.stages.items():
        for number, stage in enumerate(stages, start=1):
            yield f"methods.{name}.stage{number}", stage


def read_options(key: str, loss: type[Loss], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a loss with its defaults.

    Raises:
        UserError: an unknown option or a value that does not fit.
    """
    model = find_model(loss)
    try:
        return model.model_validate(dict(given)).model_dump(mode="json")
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, [key, *problem["loc"]]))
        if problem["type"] == "extra_forbidden":
            wanted = str(problem["loc"][-1])
            near = difflib.get_close_matches(wanted, model.model_fields, n=1)
            known = ", ".join(model.model_fields) or "none"
            hint = f", did you mean '{key}.{near[0]}'?" if near else f": it has {known}"
            raise UserError(f"unknown key {place}{hint} (python main.py --help-config lists all)") from None
        text = problem["msg"].removeprefix("Value error, ")
        raise UserError(f"{place}: {text}, not {problem['input']!r}") from None


def make_loss(key: str, name: str, options: Mapping[str, Any], shared: Mapping[str, Any]) -> Loss:
    """Return a loss with its options, before it is set up.

    Args:
        key: of its place in the config, for messages.
        name: as the stage names it.
        options: those of a stage, complete or not.
        shared: the config's section `losses`.

    Raises:
        UserError: options that do not fit.
    """
    if CLASS in options and options[CLASS] != shared.get(name, {}).get(CLASS):
        raise UserError(f"{key}.{CLASS}: the same in all stages, say it as losses.{name}.{CLASS}")
    loss = find_loss(name, shared)
    given = {option: value for option, value in options.items() if option != CLASS}
    try:
        made = loss(**read_options(key, loss, given))
    except ValueError as error:  # options that do not go together
        raise UserError(f"{key}: {error}") from None
    if made.taps and not made.used_taps:
        raise UserError(f"{key}.taps: every weight is 0, give one at which it compares")
    return made


def digest_own_losses(config: Config, stage: Stage) -> dict[str, str]:
    """Return digests of the files of a stage's losses of the user's own, by name."""
    paths = {name: str(config.losses.get(name, {}).get(CLASS, name)) for name in stage.losses}
    return {name: digest_code("losses", path) for name, path in paths.items() if is_own(path)}
