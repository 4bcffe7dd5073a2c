"""The JSON schema of report.json, and the way back from report.json to dataclasses.

python -m diagnostics.schema > docs/report.schema.json
"""

from __future__ import annotations

import functools
import json
import operator
import types
from collections.abc import Hashable
from dataclasses import fields, is_dataclass
from inspect import cleandoc
from pathlib import Path
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, create_model, model_validator

from diagnostics.evaluation.results import SCHEMA_VERSION, Report

T = TypeVar("T")
DIALECT = "https://json-schema.org/draft/2020-12/schema"
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())


@functools.cache
def make_adapter(kind: Hashable) -> TypeAdapter[Any]:
    """Return the adapter between a dataclass and the JSON that `plain.to_plain` makes of it."""
    return TypeAdapter(_replace_dataclasses(kind))


@functools.cache
def _replace_dataclasses(hint: Any) -> Any:
    """Return a type with a model of the JSON of each dataclass in it, which builds the dataclass when read."""
    if isinstance(hint, type) and is_dataclass(hint):
        build: Any = model_validator(mode="after")(lambda model: _build(hint, model))
        own = create_model(hint.__name__, __config__=STRICT, __validators__={"build": build}, **_list_fields(hint))
        own.__doc__ = cleandoc(hint.__doc__ or "")
        return own
    origin: Any = get_origin(hint)
    parts = tuple(map(_replace_dataclasses, get_args(hint)))
    if origin in (Union, types.UnionType):
        return functools.reduce(operator.or_, parts)
    return types.GenericAlias(origin, parts) if parts and isinstance(origin, type) else hint


def _list_fields(kind: type) -> dict[str, Any]:
    """Return the fields of a model: flat ones in place, keys renamed, those that may be left out optional."""
    hints = get_type_hints(kind)
    found: dict[str, Any] = {}
    for field in fields(kind):
        hint, metadata = hints[field.name], field.metadata
        if metadata.get("flat"):
            found |= _list_fields(hint)
            continue
        default = None if metadata.get("where given") else ...
        if default is None:  # absent, never null
            hint = functools.reduce(operator.or_, (part for part in get_args(hint) if part is not types.NoneType))
        found[field.name] = (_replace_dataclasses(hint), Field(default, alias=metadata.get("key")))
    return found


def _build(kind: type, model: Any) -> Any:
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for field in fields(kind):
        is_flat = field.metadata.get("flat")
        values[field.name] = _build(hints[field.name], model) if is_flat else getattr(model, field.name)
    return kind(**values)


def from_plain(kind: type[T], plain: Any) -> T:
    """Return the dataclass that `plain.to_plain` made `plain` of.

    Raises:
        ValueError: something else; the message is one line that names the first field that does not fit.
    """
    try:
        found: T = make_adapter(cast(Hashable, kind)).validate_json(json.dumps(plain))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise ValueError(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None
    return found


def make_report_schema() -> dict[str, Any]:
    """Return the JSON schema of report.json, which is what `main_eval.py RUN --json` prints."""
    return make_json_schema(Report, SCHEMA_VERSION, "report.json")


def make_json_schema(kind: type, version: int, title: str) -> dict[str, Any]:
    """Return the JSON schema of a dataclass with a `schema_version`, as `plain.to_plain` writes it."""
    made = _drop_noise(make_adapter(kind).json_schema())
    made["properties"]["schema_version"] |= {"const": version}
    return {"$schema": DIALECT, "title": title, **made}


def _drop_noise(part: Any) -> Any:
    """Return a schema without titles that repeat names, and open: a field that comes is not a new version."""
    if isinstance(part, list):
        return [_drop_noise(one) for one in part]
    if not isinstance(part, dict):
        return part
    noise = {"additionalProperties": False, "default": None}
    kept = {key: one for key, one in part.items() if not (key in noise and one == noise[key])}
    return {key: _drop_noise(one) for key, one in kept.items() if key != "title" or not isinstance(one, str)}


def read_report(path: Path) -> Report:
    """Read a report as it was written.

    Raises:
        ValueError: none, or one of another version.
    """
    try:
        plain = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise ValueError(f"{path} is no JSON") from None
    version = plain.get("schema_version") if isinstance(plain, dict) else None
    if version != SCHEMA_VERSION:
        raise ValueError(f"{path} is of another version of this program")
    try:
        return from_plain(Report, plain)
    except ValueError as error:
        raise ValueError(f"{path} is no report ({error})") from None


if __name__ == "__main__":
    print(json.dumps(make_report_schema(), indent=1, ensure_ascii=False))
