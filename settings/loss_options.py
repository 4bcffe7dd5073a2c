"""Options of losses: schema, `--help-config` and messages are made from the constructors' signatures.

A loss's name is that of its file in `losses/`, or `package.module:Class` for one of the user's own, to which the
section `losses` may give a shorter name: `losses: {mine: {class: my_losses:Cosine, scale: 2}}`. Importing losses
imports torch, which takes seconds: `check_names` does without.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from pydantic import Field, ValidationError, create_model

from errors import UserError, suggest_nearest
from settings.own_code import digest_code, is_own, load_own
from settings.schema import Config
from settings.section import Section, describe_problem, iterate_fields, suggest_keys
from settings.stages import LossUse, Stage

if TYPE_CHECKING:
    from losses.loss import Loss

FOLDER = Path(__file__).resolve().parent.parent / "losses"
CLASS = "class"  # key of the section `losses` for a loss of the user's own
MODELS: dict[type[Loss], type[Section]] = {}  # made once, which takes milliseconds


@cache
def list_losses() -> dict[str, type[Loss]]:
    """Return every loss in `losses/` by the name of its file."""
    from losses.loss import Loss

    found: dict[str, type[Loss]] = {}
    for path in sorted(FOLDER.glob("[a-z]*.py")):
        module = import_module(f"losses.{path.stem}")
        for one in vars(module).values():
            if (
                inspect.isclass(one)
                and issubclass(one, Loss)
                and one.__module__ == module.__name__
                and one != Loss
            ):
                found[path.stem] = one
    return found


@cache
def read_signatures() -> dict[str, list[str]]:
    """Return the options of every loss in `losses/`, read from its text."""
    found: dict[str, list[str]] = {}
    for path in sorted(FOLDER.glob("[a-z]*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and "Loss" in [ast.unparse(base) for base in node.bases]:
                made = [one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"]
                found[path.stem] = [argument.arg for one in made for argument in one.args.args[1:]]
    return found


def check_names(config: Config) -> Config:
    """Check the names of shipped losses and options without importing torch.

    Raises:
        UserError: an unknown loss or option.
    """
    known = read_signatures()
    uses = [(f"losses.{name}", name, options) for name, options in config.losses.items()]
    for key, stage in list_stages(config):
        uses += [(f"{key}.losses.{name}", name, use.options) for name, use in stage.losses.items()]
    for key, name, options in uses:
        path = str(config.losses.get(name, {}).get(CLASS, name))
        if is_own(path):
            continue
        if path not in known:
            raise UserError(_describe_unknown(path, known))
        for option in [one for one in options if one not in (CLASS, *known[path])]:
            hint = suggest_keys(f"{key}.{option}", [f"{key}.{one}" for one in known[path]])
            raise UserError(f"unknown key {key}.{option}{hint} (python main.py --help-config lists all)")
    return config


def _describe_unknown(path: str, known: Iterable[str]) -> str:
    return (
        f"losses: there is no {path}{suggest_nearest(path, known)} (there are {', '.join(known)}, or "
        "package.module:Class for one of your own)"
    )


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
            raise UserError(_describe_unknown(path, known))
        return known[path]
    found = load_own("losses", path)
    if not (inspect.isclass(found) and issubclass(found, Loss)):
        raise UserError(f"losses {path}: it is no subclass of losses.loss.Loss")
    return found


def get_loss_title(name: str) -> str:
    """Return the name of a loss's terms: its own, or its class's where that is a path."""
    return name.rpartition(":")[2].rpartition(".")[2].lower() if is_own(name) else name


def make_model(loss: type[Loss]) -> type[Section]:
    """Return the options of a loss as a pydantic model."""
    if loss in MODELS:
        return MODELS[loss]
    texts, hints = read_descriptions(loss), get_type_hints(loss.__init__, include_extras=True)
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(loss).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue  # of a loss without a constructor of its own
        if parameter.default is parameter.empty:
            raise UserError(f"losses: {loss.__name__} needs a default for its option {name}")
        if name in LossUse.model_fields:
            raise UserError(f"losses: {loss.__name__} has an option {name}, as every use has: rename it")
        default = dict(parameter.default) if isinstance(parameter.default, Mapping) else parameter.default
        fields[name] = (hints.get(name, Any), Field(default, description=texts.get(name, "")))
    return MODELS.setdefault(loss, create_model(loss.__name__, __base__=Section, **fields))


def read_descriptions(loss: type[Loss]) -> dict[str, str]:
    """Return the description of each option in the docstring's `Args`."""
    text = inspect.cleandoc(loss.__doc__ or "").partition("Args:\n")[2].partition("\n\n")[0]
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {8,}.*)*)", text, re.MULTILINE)
    return {name: " ".join(description.split()) for name, description in found}


def list_options() -> Iterator[tuple[str, Any, Any, str]]:
    """Yield key, annotation, default and description of every option of a loss."""
    for name, loss in list_losses().items():
        yield from iterate_fields(make_model(loss)(), f"losses.{name}.")


def fill_losses(config: Config) -> Config:
    """Check every loss of a config and fill in the defaults of its options.

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
    """Yield every training of a config with its key, the teacher's first."""
    yield "teacher", config.teacher_stage
    for name, stages in config.stages.items():
        for number, stage in enumerate(stages, start=1):
            yield f"methods.{name}.stage{number}", stage


def read_options(key: str, loss: type[Loss], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a loss with its defaults.

    Raises:
        UserError: an unknown option or a value that does not fit.
    """
    model = make_model(loss)
    try:
        return model.model_validate(dict(given)).model_dump(mode="json")
    except ValidationError as error:
        raise UserError(describe_problem(error, model, f"{key}.")) from None


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
        raise UserError(f"{key}.{CLASS}: the same in all stages, set it as losses.{name}.{CLASS}")
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
