"""The models of a study in groups: one point of the grid and one method, all seeds and teachers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from settings.study import NAME
from study.grid import Point, drop_key
from study.measurements import Measurement
from study.units import Unit

Group = dict[Unit, Measurement]  # the models of one point and method
Groups = Mapping[tuple[str, str], Group]  # point as JSON, method


def list_teachers(group: Group) -> dict[Unit, str]:
    """Return the digest of each unit's teacher."""
    return {unit: record.teacher_hash for unit, record in group.items()}


def list_seeds(units: Iterable[Unit]) -> list[int]:
    return sorted({unit.seed for unit in units})


def make_key(point: Mapping[str, Any]) -> str:
    """Return a point's values as JSON, without its name."""
    return json.dumps({key: value for key, value in point.items() if key != NAME}, sort_keys=True)


def list_group_points(groups: Groups) -> dict[str, Point]:
    """Return each point once, by its key."""
    return {key: next(iter(group.values())).point for (key, _), group in groups.items()}


def group_records(records: Sequence[Measurement]) -> dict[tuple[str, str], Group]:
    groups: dict[tuple[str, str], Group] = {}
    for record in records:
        group = groups.setdefault((make_key(record.point), record.method), {})
        if record.unit in group:
            raise ValueError(f"two records of {record.method}, seed {record.seed}, at {record.place}")
        group[record.unit] = record
    return groups


def place_group(group: Group, without: str = "") -> tuple[Point, str]:
    """Return the point of a group and its label, both without one key."""
    record = next(iter(group.values()))
    point = {key: value for key, value in record.point.items() if key != without}
    return point, drop_key(record.place, without) if without else record.place
