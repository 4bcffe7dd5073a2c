"""Settings on top of settings: a file on its base, `--set`, and a point of a grid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WHOLE = ("taps",)  # sections that are replaced, since what they leave out is left out


def merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the values of `top`; sections of both are merged."""
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        if key not in WHOLE and isinstance(value, Mapping) and isinstance(below, Mapping):
            value = merge(below, value)
        merged[key] = value
    return merged


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return values of nested sections by dotted keys; {} is a value."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        found |= flatten(value, f"{name}.") if isinstance(value, Mapping) and value else {name: value}
    return found
