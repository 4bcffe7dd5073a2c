"""Results as JSON holds them: dataclasses become dicts at the one place where a report is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, fields, is_dataclass
from typing import Any

from pydantic import BaseModel

FLAT = {"flat": True}  # metadata of a field whose own fields stand in its place
WHERE_GIVEN = {"where given": True}  # metadata of a field that is left out where it is None


def to_plain(value: Any) -> Any:
    """Dataclasses as dicts in the order of their fields, tuples as lists, all else as it is.

    Fields marked `FLAT` and `WHERE_GIVEN` are treated as said there; metadata `key` names one otherwise.
    """
    if is_dataclass(value) and not isinstance(value, type):
        plain: dict[str, Any] = {}
        for field in fields(value):
            plain |= _field(field, getattr(value, field.name))
        return plain
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {key: to_plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(part) for part in value]
    return value


def _field(field: Field[Any], value: Any) -> dict[str, Any]:
    if value is None and field.metadata.get("where given"):
        return {}
    plain = to_plain(value)
    return dict(plain) if field.metadata.get("flat") else {field.metadata.get("key", field.name): plain}
