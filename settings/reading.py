"""Config files: a YAML file, its base files, and overrides, made into a `Config`.

A YAML file may contain `base: other.yaml` (relative to itself) and then holds only what differs. `--set
section.key=value` overrides any field.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import ValidationError

from errors import UserError, suggest_nearest
from settings.merge import flatten, merge
from settings.methods import list_shipped, normalise_methods
from settings.moved import find_moved
from settings.own_code import mark_foreign
from settings.plain_yaml import parse, read_text
from settings.schema import Config, list_prerequisites
from settings.section import describe_problem, iterate_fields
from settings.stages import LossUse, Stage, Training

CONFIGS = Path(__file__).parents[1] / "configs"
DEFAULT_CONFIG = CONFIGS / "digits.yaml"
MAX_FILES = 20  # of a chain, each with the next as base
STAGE_N = "methods.NAME.stageN."  # of any stage in `--help-config`
FREE = ("seeds", "checkpoint_minutes", "data.in_memory", "data.workers")  # keys that a run may change

Overrides = Sequence[str] | Mapping[str, str]  # KEY=VALUE, or these by what the user wrote for them


def load_config(
    path: Path, overrides: Overrides = (), check: Callable[[Config], Config] = lambda config: config
) -> Config:
    """Read a YAML file with its bases, apply `key=value` overrides and validate.

    check: more validation, such as `loss_options.fill_losses`.

    Raises:
        UserError: what is wrong, after the name of the file or override to blame.
    """
    steps = [(str(path), _merge_files(_read_files(path)))]
    for name, key, value in _parse_overrides(overrides):
        steps.append((name, set_key(steps[-1][1], key, value, name)))
    where, values = steps.pop()
    problem, config = _find_problem(values, check)
    while problem and steps and _find_problem(steps[-1][1], check)[0] == problem:
        where, values = steps.pop()
    if config is None:
        raise UserError(f"{where}: {problem}")
    return config


def _find_problem(values: Mapping[str, Any], check: Callable[[Config], Config]) -> tuple[str, Config | None]:
    """Return what is wrong with a config's values, or the config."""
    try:
        return "", check(validate(values))
    except UserError as error:
        return str(error), None


def _parse_overrides(overrides: Overrides) -> list[tuple[str, str, Any]]:
    """Return the name of each override in messages, its key and its value."""
    found = []
    named = overrides if isinstance(overrides, Mapping) else {f"--set {text}": text for text in overrides}
    for name, text in named.items():
        key, separator, value = text.partition("=")
        if not separator:
            raise UserError(f"{name}: write KEY=VALUE, for example --set losses.crd.temperature=0.07")
        name = name if len(name) <= 120 else f"{name[:117]}..."
        found.append((name, key.strip(), parse(value, name)))
    return found


def load_written(path: Path) -> Config:
    """Read the config.yaml of a run or a study.

    Raises:
        UserError: as `load_config`, or a run of an earlier version, which is not read any more.
    """
    values = parse(read_text(path), str(path))
    if isinstance(values, dict) and {"crd", "kd", "baselines", "variants"} & values.keys():
        raise UserError(f"{path} was written by an earlier version, whose runs are not read: train it again")
    config = load_config(path)
    mark_foreign(config, path)
    return config


def validate(values: Mapping[str, Any], where: str = "") -> Config:
    """Return values on the defaults as a config; `where` begins a `UserError`."""
    try:
        return Config.model_validate(merge(Config().model_dump(), values))
    except ValidationError as error:
        raise UserError(f"{where}: {describe_problem(error, Config)}".removeprefix(": ")) from None


def set_key(values: dict[str, Any], key: str, value: Any, where: str) -> dict[str, Any]:
    """Return a config's values with another value or section of a dotted key.

    Raises:
        UserError: a key of earlier versions, one below a value, or one of a method that does not exist. The
            message begins with `where`.
    """
    nested = _make_nested(key, value)
    _refuse_moved(where, key, *flatten(nested))
    section, *names = key.split(".")
    if section == "methods" and len(names) > 1 and names[1] not in ("base", "twin_of"):
        known = [*values.get("methods", {}), *list_shipped()]
        if names[0] not in known:  # it would make a new one
            raise UserError(f"{where}: there is no method {names[0]}{suggest_nearest(names[0], known)}")
    place: Any = values
    for part in key.split(".")[:-1] if section != "methods" else []:
        place = place.get(part, {})
        if not isinstance(place, dict):
            raise UserError(f"{where}: {part} is a value, not a section")
    return _merge_values(values, nested)


def _make_nested(key: str, value: Any) -> dict[str, Any]:
    """Return the value of a dotted key as nested sections."""
    for part in reversed(key.split(".")):
        value = {part: value}
    nested: dict[str, Any] = value
    return nested


def _merge_values(below: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a file or an override on those below."""
    merged = merge(below, {key: value for key, value in values.items() if key != "methods"})
    if "methods" in values:
        merged["methods"] = normalise_methods(values["methods"], below.get("methods", {}))
    return merged


def _refuse_moved(where: str, *keys: str) -> None:
    """Raise `UserError` for a key of earlier versions."""
    for key in keys:
        now = find_moved(key)
        if now is not None:
            raise UserError(f"{where}: {key} is now {now}")


def _read_files(path: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Return the values of a file and of its base files, the lowest first."""
    found: list[tuple[Path, dict[str, Any]]] = []
    base: Any = None
    while not found or base is not None:
        text = read_text(path)
        if path.resolve() in [one.resolve() for one, _ in found]:
            raise UserError(f"{path}: its chain of base files comes back to itself")
        if len(found) == MAX_FILES:
            raise UserError(f"{path}: more than {MAX_FILES} files, each with the next as base: join some of them")
        values = parse(text, str(path))
        values = {} if values is None else values  # an empty file
        if not isinstance(values, dict):
            raise UserError(f"{path}: expected keys and values, see python main.py --help-config")
        base = values.pop("base", None)
        if base is not None and (not isinstance(base, str) or not base):
            raise UserError(f"{path}: base: {base!r} is no file, name one YAML file")
        _refuse_moved(str(path), *flatten(values))
        found.insert(0, (path, values))
        beside, shipped = path.parent / os.path.expanduser(str(base)), CONFIGS / str(base)
        path = shipped if shipped.is_file() and not beside.is_file() else beside
    return found


def _merge_files(files: list[tuple[Path, dict[str, Any]]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for _, values in files:
        merged = _merge_values(merged, values)
    return merged


def list_unused(
    config: Config, path: Path, overrides: Overrides = (), methods: Sequence[str] = ()
) -> Iterator[str]:
    """Yield a line for each loss or method with options that no training reads.

    methods: to train, with those that they need; all by default.
    """
    if any(key.partition(".")[0] == "methods" for entry in config.study.grid for key in entry):
        return  # points have methods of their own
    stages = [config.teacher_stage, *(stage for stages in config.stages.values() for stage in stages)]
    used = {loss for stage in stages for loss in stage.losses}
    trained = set(methods or config.methods)
    while (
        needed := {need for name in trained for one in config.stages[name] for need in list_prerequisites(one)}
        - trained
    ):
        trained |= needed
    files = [(str(one), values) for one, values in _read_files(path) if CONFIGS not in one.resolve().parents]
    given = [(name, _make_nested(key, value)) for name, key, value in _parse_overrides(overrides)]
    for where, values in [*files, *given]:
        losses = values.get("losses")
        for name in losses if isinstance(losses, dict) else ():
            if name not in used:
                yield f"{where}: losses.{name} has no effect, since no method of this run uses this loss"
    for where, values in given:
        changed = values.get("methods")
        for name, change in changed.items() if isinstance(changed, dict) else ():
            if change and name not in trained:
                yield f"{where}: methods.{name} has no effect, since this command does not train it"


def list_fields() -> Iterator[tuple[str, str, Any, str]]:
    """Yield key, type, default and description of every option of a config."""
    for key, kind, default, text in iterate_fields(Config()):
        yield key, _name_type(kind), default, text


def format_options() -> str:
    """Return the table of all options that `--help-config` prints."""
    from settings.loss_options import list_options

    shared = {key for key, *_ in iterate_fields(Training(), STAGE_N)} - {
        f"{STAGE_N}epochs"
    }  # listed as `training`
    own = [row for row in iterate_fields(Stage(), STAGE_N) if row[0] not in shared]
    uses = iterate_fields(LossUse(), f"{STAGE_N}losses.LOSS.")
    rows = [
        (key, _show_default(default), f"{text} [{_name_type(kind)}]")
        for key, kind, default, text in [*iterate_fields(Config()), *own, *uses, *list_options()]
    ]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(f"{key:<{widths[0]}}  {default:<{widths[1]}}  {rest}" for key, default, rest in rows)


def _show_default(default: Any) -> str:
    if isinstance(default, dict):
        return str({key: one.weight if isinstance(one, LossUse) else one for key, one in default.items()})
    return f"{default}"


def _name_type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _name_type(arguments[0])
    if origin is Literal:
        return "|".join(str(argument) for argument in arguments)
    if origin in (Union, UnionType):
        return "|".join(_name_type(argument) for argument in arguments if argument is not type(None))
    if origin is list:
        return f"list of {_name_type(arguments[0])}"
    if origin is not None and len(arguments) == 2:
        return f"{_name_type(arguments[1])} by name"
    return str(getattr(annotation, "__name__", annotation)).removeprefix("Posix").lower()


def to_yaml(config: Config) -> str:
    """Return the resolved config as YAML that `load_config` reads back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def find_differing_keys(first: Config, second: Config) -> list[str]:
    """Return dotted keys whose values differ in two configs, but for `FREE`.

    Methods that only one of them has are left out: a run may gain methods.
    """
    own, other = (config.resolve() for config in (first, second))
    both = [name for name in own["methods"] if name in other["methods"]]
    for values in (own, other):
        values["methods"] = {name: values["methods"][name] for name in both}
    flat = flatten(own), flatten(other)
    keys = [key for key in {**flat[0], **flat[1]} if key not in FREE]
    return [key for key in keys if flat[0].get(key) != flat[1].get(key)]


def show_keys(keys: Sequence[str], most: int = 3) -> str:
    """Return the first of some keys, and how many more there are."""
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return f"{', '.join(keys[:most])}{more}"
