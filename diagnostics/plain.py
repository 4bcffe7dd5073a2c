"""Conversion of dataclasses to plain JSON values, and back to dataclasses."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import Field, fields, is_dataclass
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, TypeAdapter

T = TypeVar("T")

FLAT = {"flat": True}  # metadata of a field whose own fields stand in its place
WHERE_GIVEN = {"where given": True}  # metadata of a field that is left out where it is None


def to_plain(value: Any) -> Any:
    """Return dataclasses as dicts in the order of their fields, tuples as lists, all else as it is.

    Numbers that are not finite become None: JSON has none.
    Fields marked `FLAT` and `WHERE_GIVEN` are treated as said there; metadata `key` names one otherwise.
    """
    if is_dataclass(value) and not isinstance(value, type):
        plain: dict[str, Any] = {}
        for field in fields(value):
            plain |= _convert_field(field, getattr(value, field.name))
        return plain
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {key: to_plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _convert_field(field: Field[Any], value: Any) -> dict[str, Any]:
    if value is None and field.metadata.get("where given"):
        return {}
    plain = to_plain(value)
    return dict(plain) if field.metadata.get("flat") else {field.metadata.get("key", field.name): plain}


def get_section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a section of a recorded config; empty where it has none."""
    found = config.get(name)
    return found if isinstance(found, Mapping) else {}


def parse_json(adapter: TypeAdapter[T], kind: type[T], text: str) -> T:
    """Return JSON as a dataclass whose fields have their declared types.

    Raises:
        ValueError: another type, NaN or infinity, a field that is not there or that the dataclass has not.
    """

    def refuse(name: str) -> NoReturn:
        raise ValueError(f"{name} is no number")

    values = json.loads(text, parse_constant=refuse)
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]  # T is a dataclass wherever this is used
    strange = sorted(values.keys() - known) if isinstance(values, dict) else ["what is no section"]
    if strange:
        raise ValueError(f"{strange[0]} is unknown to this version")
    return adapter.validate_json(text, strict=True)
