"""What report.json holds, as a JSON schema, and the way back from it to dataclasses.

python -m diagnostics.schema > docs/report.schema.json
"""

from __future__ import annotations

import json
import types
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from inspect import cleandoc
from pathlib import Path
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from diagnostics.evaluation.results import SCHEMA_VERSION, Report

T = TypeVar("T")
DIALECT = "https://json-schema.org/draft/2020-12/schema"
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())


@cache
def plain_model(kind: Any) -> type[BaseModel]:
    """A dataclass as `plain.to_plain` writes it: flat fields in place, keys renamed, what is left out optional."""
    model = create_model(kind.__name__, __config__=STRICT, **_plain_fields(kind))
    model.__doc__ = cleandoc(kind.__doc__ or "")
    return model


def _plain_fields(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    found: dict[str, Any] = {}
    for field in fields(kind):
        hint, metadata = hints[field.name], field.metadata
        if metadata.get("flat"):
            found |= _plain_fields(hint)
            continue
        default = None if metadata.get("where given") else ...
        plain = _plain_type(_without_none(hint) if default is None else hint)
        found[field.name] = (plain, Field(default, alias=metadata.get("key", field.name)))
    return found


def _plain_type(hint: Any) -> Any:
    origin, parts = get_origin(hint), get_args(hint)
    if is_dataclass(hint) and isinstance(hint, type):
        return plain_model(hint)
    if origin in (Union, types.UnionType):
        return Union[tuple(_plain_type(part) for part in parts)]  # noqa: UP007  # of types that are known here alone
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return dict[parts[0], _plain_type(parts[1])]  # type: ignore[misc, valid-type]  # the same
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return list[_plain_type(parts[0])]  # type: ignore[misc]  # the same
    return hint


def _without_none(hint: Any) -> Any:
    kinds = [part for part in get_args(hint) if part is not types.NoneType]
    return kinds[0] if len(kinds) == 1 else hint


def from_plain(kind: type[T], plain: Any) -> T:
    """What `plain.to_plain` made of a dataclass, turned back into it.

    Raises:
        ValueError: something else; the message is one line that names the first field that does not fit.
    """
    model: type[BaseModel] = plain_model(cast(Hashable, kind))
    try:
        model.model_validate_json(json.dumps(plain))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise ValueError(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None
    found: T = _built(kind, plain)
    return found


def _built(hint: Any, value: Any) -> Any:
    origin, parts = get_origin(hint), get_args(hint)
    if value is None:
        return None
    if is_dataclass(hint) and isinstance(hint, type):
        return _built_fields(hint, value)
    if origin in (Union, types.UnionType):
        return _built(_without_none(hint), value) if types.NoneType in parts else value
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {key: _built(parts[1], part) for key, part in value.items()}
    if isinstance(origin, type) and issubclass(origin, Sequence):
        made = [_built(parts[0], part) for part in value]
        return tuple(made) if origin is tuple else made
    return value


def _built_fields(kind: type, plain: Mapping[str, Any]) -> Any:
    hints, values = get_type_hints(kind), {}
    for field in fields(kind):
        hint, key = hints[field.name], field.metadata.get("key", field.name)
        values[field.name] = _built(hint, plain if field.metadata.get("flat") else plain.get(key))
    return kind(**values)


def schema() -> dict[str, Any]:
    """The JSON schema of report.json, which is what `main_eval.py RUN --json` prints."""
    return schema_of(Report, SCHEMA_VERSION, "report.json")


def schema_of(kind: type, version: int, title: str) -> dict[str, Any]:
    """The JSON schema of a dataclass with a `schema_version`, as `plain.to_plain` writes it."""
    made = _open(plain_model(kind).model_json_schema())
    made["properties"]["schema_version"] |= {"const": version}
    return {"$schema": DIALECT, "title": title, **made}


def _open(part: Any) -> Any:
    """Without titles that repeat names, and without closing objects: a field that comes is not a new version."""
    if isinstance(part, list):
        return [_open(one) for one in part]
    if not isinstance(part, dict):
        return part
    closing = {"additionalProperties": False, "default": None}
    kept = {key: one for key, one in part.items() if not (key in closing and one == closing[key])}
    return {key: _open(one) for key, one in kept.items() if key != "title" or not isinstance(one, str)}


def read_report(path: Path) -> Report:
    """A report as it was written.

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
    print(json.dumps(schema(), indent=1, ensure_ascii=False))
