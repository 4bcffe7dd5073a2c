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

from configs.merge import merge
from configs.plain_yaml import parse, read_text
from configs.schema import Config
from errors import UserError

LONGEST_CHAIN = 20  # files, each the base of the one before
# what a run may be gone on with another value of; the last two change how fast images come, and none of them
FREE = ("seeds", "checkpoint_minutes", "data.in_memory", "data.workers")
GONE = (("crd", "queue_length"),)  # sections and keys that earlier versions wrote, without effect on what is left


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file with its bases, apply `key=value` overrides and validate.

    Raises:
        UserError: a file that is missing or not YAML, an unknown key, a value of the wrong type or range.
    """
    values = _read_yaml(path)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise UserError(f"--set {override}: write KEY=VALUE, for example --set crd.temperature=0.07")
        _assign(values, key.strip(), parse(text, f"--set {key}"))
    return _validated(values, path)


def load_written(path: Path) -> Config:
    """Read the config.yaml of a run or a study, which this or an earlier version wrote.

    Raises:
        UserError: as `load_config`.
    """
    values = _read_yaml(path)
    for section, key in GONE:
        if isinstance(values.get(section), dict):
            values[section].pop(key, None)
    for section in ("teacher", "student"):  # earlier versions normalised as the data, whatever weights they named
        network = values.get(section)
        if isinstance(network, dict) and network.get("weights") is not None and "mean" not in network:
            network |= {"mean": "data", "std": "data"}
    study = values.get("study")
    if isinstance(study, dict) and "hypothesis" in study:  # of the versions that took one, without a name
        stated = study.pop("hypothesis")
        study.setdefault("hypotheses", {} if stated is None else {"H1": stated})
    return _validated(values, path)


def _validated(values: Mapping[str, Any], path: Path) -> Config:
    try:
        return Config.model_validate(merge(Config().model_dump(), values))
    except ValidationError as error:
        raise UserError(f"{path}: {_first_problem(error)}") from None


def list_fields(section: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, str, Any, str]]:
    """Yield (dotted key, type, default, description) of every option."""
    defaults = section()
    for name, field in section.model_fields.items():
        default = getattr(defaults, name)
        if isinstance(default, BaseModel):
            for key, kind, _, description in list_fields(type(default), f"{prefix}{name}."):
                yield key, kind, _lookup(default, key.removeprefix(f"{prefix}{name}.")), description
        else:
            yield f"{prefix}{name}", _type_name(field.annotation), default, field.description or ""


def config_table() -> str:
    """The options as a plain-text table for `--help-config`."""
    rows = [(key, f"{default}", f"{description} [{kind}]") for key, kind, default, description in list_fields()]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(f"{key:<{widths[0]}}  {default:<{widths[1]}}  {rest}" for key, default, rest in rows)


def to_yaml(config: Config) -> str:
    """The resolved config as YAML that `load_config` reads back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def differing_keys(first: Config, second: Config) -> list[str]:
    """Dotted keys in which two configs differ, those aside that are `FREE` (a run may gain seeds).

    A value that is left to follow another key is the same as that value written out.
    """
    written, resolved = (first, second), (first.resolved(), second.resolved())
    keys = [key for key, *_ in list_fields() if key not in FREE]
    return [key for key in keys if all(_lookup(a, key) != _lookup(b, key) for a, b in (written, resolved))]


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
    return str(annotation.__name__).removeprefix("Posix").lower()


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
    if base is None:
        return values
    if not isinstance(base, str) or not base:
        raise UserError(f"{path}: base: {base!r} is no file, name one YAML file")
    return merge(_read_yaml(path.parent / base, (*above, place)), values)


def _assign(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        child = values.setdefault(section, {})
        if not isinstance(child, dict):
            raise UserError(f"--set {key}: {section} is a value, not a section")
        values = child
    values |= merge(values, {last: value})


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
        return f"unknown key {key}{hint_for(key)} (python main.py --help-config lists all)"
    message = problem["msg"].removeprefix("Value error, ")
    given = "" if isinstance(problem["input"], dict | BaseModel) else f", not {problem['input']!r}"
    return f"{key}: {message}{given}" if key else message


DEFAULT_CONFIG = Path(__file__).with_name("digits.yaml")
