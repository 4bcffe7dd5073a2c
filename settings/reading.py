"""Config files: a YAML file, what it builds on, and overrides, made into a `Config`.

A YAML file may say `base: other.yaml` (relative to itself) and then holds only what differs. `--set
section.key=value` overrides any field.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from errors import UserError, nearest
from settings.merge import flatten, merge
from settings.methods import list_shipped, normalise_methods
from settings.moved import find_moved
from settings.plain_yaml import parse, read_text
from settings.schema import Config
from settings.stages import LossUse, Stage

LONGEST_CHAIN = 20  # files, each the base of the one before
# what a run may be gone on with another value of; the last two change how fast images come, and none of them
FREE = ("seeds", "checkpoint_minutes", "data.in_memory", "data.workers")


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file with its bases, apply `key=value` overrides and validate.

    Options of losses are validated by `loss_options.complete_losses`.

    Raises:
        UserError: a file that is missing or not YAML, an unknown key, a value of the wrong type or range.
    """
    values = _read_yaml(path)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise UserError(f"--set {override}: write KEY=VALUE, for example --set losses.crd.temperature=0.07")
        values = set_key(values, key.strip(), parse(text, f"--set {key}"), "--set")
    return validate(values, str(path))


def load_written(path: Path) -> Config:
    """Read the config.yaml of a run or a study.

    Raises:
        UserError: as `load_config`, or a run of a version whose runs are not read any more.
    """
    values = parse(read_text(path), str(path))
    if isinstance(values, dict) and {"crd", "kd", "baselines", "variants"} & values.keys():
        raise UserError(f"{path} was written by an earlier version, whose runs are not read: train it again")
    return validate(_read_yaml(path), str(path))


def validate(values: Mapping[str, Any], where: str) -> Config:
    """Return values on those that are left to their defaults as a config.

    where: begins the message of a refusal.

    Raises:
        UserError: an unknown key, a value of the wrong type or range.
    """
    try:
        return Config.model_validate(merge(Config().model_dump(), values))
    except ValidationError as error:
        raise UserError(f"{where}: {_first_problem(error)}") from None


def set_key(values: dict[str, Any], key: str, value: Any, where: str) -> dict[str, Any]:
    """Return a config's values with another one of a dotted key, which may be that of a section.

    where: what names the key, for messages: "--set", or "study.grid:".

    Raises:
        UserError: a key of earlier versions, one below a value, or one of a method that there is not.
    """
    _refuse_moved(f"{where} {key}", key)
    _check_method(key, values.get("methods", {}), where)
    return _lay_over(values, _nest(key, value, values, where))


def _check_method(key: str, methods: Mapping[str, Any], where: str) -> None:
    """Raise `UserError` for a key within a method that is neither there nor shipped: it would make a new one."""
    section, *names = key.split(".")
    if section == "methods" and len(names) > 1 and names[1] not in ("base", "twin_of"):
        known = [*methods, *list_shipped()]
        if names[0] not in known:
            raise UserError(f"{where} {key}: there is no method {names[0]}{nearest(names[0], known)}")


def _lay_over(below: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
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


def list_fields(section: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, str, Any, str]]:
    """Yield (dotted key, type, default, description) of every option, those of losses aside."""
    defaults = section()
    for name, field in section.model_fields.items():
        default = getattr(defaults, name)
        if isinstance(default, BaseModel):
            for key, kind, _, description in list_fields(type(default), f"{prefix}{name}."):
                yield key, kind, _lookup(default, key.removeprefix(f"{prefix}{name}.")), description
        else:
            yield f"{prefix}{name}", _type_name(field.annotation), default, field.description or ""


def config_table() -> str:
    """Return the options as a plain-text table for `--help-config`, with those of stages and losses."""
    from settings.loss_options import list_options

    own = [*list_fields(Stage, "methods.NAME.stageN."), *list_fields(LossUse, "methods.NAME.stageN.losses.LOSS.")]
    taken = {key.rpartition("training.")[2] for key, *_ in list_fields() if key.startswith("training.")} - {
        "epochs"
    }
    own = [row for row in own if row[0].removeprefix("methods.NAME.stageN.") not in taken]
    of_losses = [(key, _type_name(kind), default, text) for key, kind, default, text in list_options()]
    fields = [*list_fields(), *own, *of_losses]
    rows = [(key, _show_default(default), f"{text} [{kind}]") for key, kind, default, text in fields]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(f"{key:<{widths[0]}}  {default:<{widths[1]}}  {rest}" for key, default, rest in rows)


def _show_default(default: Any) -> str:
    if isinstance(default, dict):
        return str({key: one.weight if isinstance(one, LossUse) else one for key, one in default.items()})
    return f"{default}"


def to_yaml(config: Config) -> str:
    """The resolved config as YAML that `load_config` reads back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def differing_keys(first: Config, second: Config) -> list[str]:
    """Return dotted keys in which two configs differ, those aside that are `FREE` (a run may gain seeds).

    A method that only one of them has is no difference: a run may gain methods.
    """
    own, other = (config.resolved() for config in (first, second))
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


def _lookup(section: BaseModel, key: str) -> Any:
    for part in key.split("."):
        section = getattr(section, part)
    return section


def _type_name(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_name(arguments[0])
    if origin is Literal:
        return "|".join(str(argument) for argument in arguments)
    if origin in (Union, UnionType):
        return "|".join(_type_name(argument) for argument in arguments if argument is not type(None))
    if origin is list:
        return f"list of {_type_name(arguments[0])}"
    if origin is not None and len(arguments) == 2:
        return f"{_type_name(arguments[1])} by name"
    return str(getattr(annotation, "__name__", annotation)).removeprefix("Posix").lower()


def _read_yaml(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A file's values on those of its bases; `above` are the files that led to it."""
    text = read_text(path)
    place = path.resolve()
    if place in above:
        raise UserError(f"{path}: its chain of base files comes back to itself")
    if len(above) == LONGEST_CHAIN:
        raise UserError(f"{path}: more than {LONGEST_CHAIN} files, each with the next as base: join some of them")
    values = parse(text, str(path))
    if values is None:  # an empty file
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected keys and values, see python main.py --help-config")
    base = values.pop("base", None)
    _refuse_moved(str(path), *flatten(values))
    if base is None:
        return _lay_over({}, values)
    if not isinstance(base, str) or not base:
        raise UserError(f"{path}: base: {base!r} is no file, name one YAML file")
    return _lay_over(_read_yaml(_find_base(path, base), (*above, place)), values)


def _find_base(path: Path, base: str) -> Path:
    """Return a base file: beside the file that names it, or among the shipped ones."""
    beside, shipped = path.parent / base, CONFIGS / base
    return shipped if shipped.is_file() and not beside.is_file() else beside


def _nest(key: str, value: Any, below: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return an override as nested sections, refused where a section of it is a value."""
    *sections, last = key.split(".")
    nested: dict[str, Any] = {last: value}
    for section in reversed(sections):
        nested = {section: nested}
    place: Any = below
    for section in sections if sections[:1] != ["methods"] else []:
        place = place.get(section, {})
        if not isinstance(place, dict):
            raise UserError(f"{where} {key}: {section} is a value, not a section")
    return nested


def hint_for(key: str) -> str:
    """What a key that there is not may have meant, as the end of a message; nothing where nothing is near."""
    meant = _meant(key)
    return f", did you mean {' or '.join(repr(one) for one in meant)}?" if 0 < len(meant) <= 4 else ""


def _meant(key: str) -> list[str]:
    """Keys like a misspelt one: of its own section, below it, or of the same name in others."""
    fields = [name for name, *_ in list_fields()]
    sections = {name.rpartition(".")[0] for name in fields} - {""}
    section, _, name = key.rpartition(".")
    if section and section not in sections:
        return [f"{one}.{name}" for one in _meant(section) if f"{one}.{name}" in fields] or _meant(section)
    known = {one.rpartition(".")[2]: one for one in [*fields, *sections] if one.rpartition(".")[0] == section}
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    if near:
        return [known[near[0]]]
    same = [one for one in fields if one.rpartition(".")[2] == name]
    return [one for one in same if section and one.startswith(f"{section}.")] or same


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        now = find_moved(key)
        if now is not None:
            return f"{key} is now {now}"
        return f"unknown key {key}{hint_for(key)} (python main.py --help-config lists all)"
    message = problem["msg"].removeprefix("Value error, ")
    given = "" if isinstance(problem["input"], dict | BaseModel) else f", not {problem['input']!r}"
    return f"{key}: {message}{given}" if key else message


CONFIGS = Path(__file__).parents[1] / "configs"
DEFAULT_CONFIG = CONFIGS / "digits.yaml"
