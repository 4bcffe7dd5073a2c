"""The grid of a study: points, the config and name of each run, and shards.

A point is one combination of the grid's values; a run is a point with one seed, a run folder of its own.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from errors import UserError
from settings.reading import set_key, validate
from settings.schema import Config
from settings.section import MAX_NAME_BYTES
from settings.study import NAME, Study

Point = Mapping[str, Any]  # dotted config keys and their values, and the name of its entry where that has one
MOST_POINTS = 10_000  # of a grid, whose combinations soon outgrow any machine
LONGEST_POINT = MAX_NAME_BYTES - 28  # bytes of a point's name, behind which come a number and a seed
FIXED = ("seeds", "study", "shortcut.seed")  # keys that each run has its own value of
TEACHER_SEED = "teacher.seed"
TEACHERS = (TEACHER_SEED, "teacher.checkpoint")  # keys whose values in one entry are teachers of the same point
ONLY_POINT = "the only point"


@dataclass(frozen=True)
class GridPoint:
    """One combination of the values of an entry of the grid."""

    values: Point
    name: str = ""  # fit for a folder; empty for the point without values
    label: str = ONLY_POINT  # in words
    teachers: tuple[str, ...] = ()  # keys of `TEACHERS` of which its entry has several values

    def drop_teacher(self) -> GridPoint:
        """Return the point that the teachers of an entry share."""
        values = {key: value for key, value in self.values.items() if key not in self.teachers}
        label = self.label
        for key in self.teachers:
            label = drop_key(label, key)
        return replace(self, values=values, label=label, teachers=())

    @property
    def teacher(self) -> str:
        """The teacher in words, where the point has several."""
        return ", ".join(f"{key} {self.values[key]}" for key in self.teachers)


@dataclass(frozen=True)
class StudyRun:
    """One run of a study."""

    point: Point
    seed: int
    config: Config
    label: str = ONLY_POINT  # the point in words
    pooled: GridPoint = GridPoint({})  # the point without the teacher, where it has several
    teacher: str = ""  # in words, where the point has several

    @property
    def name(self) -> str:
        return self.config.name


def list_points(grid: Sequence[Mapping[str, Any]]) -> list[GridPoint]:
    """Return the combinations of each entry's values, equal ones once.

    An empty grid is one point without values.

    Raises:
        UserError: a key without values, a named point that another entry has too, or more combinations than
            `MOST_POINTS`.
    """
    entries = [{key: values for key, values in entry.items() if key != NAME} for entry in grid]
    size = sum(math.prod(map(len, entry.values())) for entry in entries)
    if size > MOST_POINTS:
        raise UserError(f"study.grid: {size:,} combinations, at most {MOST_POINTS:,} are taken: name fewer values")
    found: list[Point] = []
    several: list[tuple[str, ...]] = []  # keys that give each its teacher
    shown: list[list[str]] = []  # keys whose values tell a point from the others, behind the name of its entry
    for entry, given in zip(entries, grid, strict=True):
        before = list(found)
        for point in _combine_values(entry):
            same = next((other for other in before if _drop_name(other) == point), None)
            if same is not None and NAME in {**given, **same}:
                raise UserError(f"study.grid: {describe_point(point)} is in two entries, one of them with a name")
            named = {NAME: given[NAME], **point} if NAME in given else point
            if same is None and named not in found:
                found.append(named)
                several.append(tuple(key for key in TEACHERS if len(entry.get(key, [])) > 1))
                shown.append([key for key, values in entry.items() if len(values) > 1 or NAME not in given])
    named_points = _name_points(found, shown) if grid else [GridPoint({})]
    points = [replace(point, teachers=keys) for point, keys in zip(named_points, several or [()], strict=True)]
    _refuse_split_teachers(points)
    return points


def _refuse_split_teachers(points: Sequence[GridPoint]) -> None:
    """Raise `UserError` for two names of points that differ in their several teachers alone."""
    shared = [point.drop_teacher().values for point in points]
    for one, other in itertools.combinations(shared, 2):
        if one != other and _drop_name(one) == _drop_name(other):
            names = " and ".join(str(point.get(NAME, "an entry without a name")) for point in (one, other))
            raise UserError(f"study.grid: {names} differ in their teachers alone: write them in one entry")


def _combine_values(entry: Mapping[str, list[Any]]) -> list[Point]:
    for key, values in entry.items():
        if not values:
            raise UserError(f"study.grid: {key} has no values")
    sorted_keys = sorted(entry)  # the last of them changes fastest
    combinations = itertools.product(*(entry[key] for key in sorted_keys))
    return [{key: values[sorted_keys.index(key)] for key in entry} for values in combinations]


def _drop_name(point: Point) -> Point:
    return {key: value for key, value in point.items() if key != NAME}


def _name_points(points: Sequence[Point], shown: Sequence[Sequence[str]]) -> list[GridPoint]:
    """Return points with unique names, fit for a folder, and labels.

    In a name a word stands alone where only one key takes it, otherwise after its key.

    Args:
        points: of the grid.
        shown: keys whose values name and label have of each, behind the name of its entry.
    """
    plain = [_drop_name(point) for point in points]
    keys_by_value: dict[str, set[str]] = {}
    for point in plain:
        for key, value in point.items():
            keys_by_value.setdefault(str(value), set()).add(key)
    short = name_keys({key for point in plain for key in point})

    def format_part(key: str, value: Any) -> str:
        text = re.sub(r"[^\w.]+", "_", str(value)).strip("_") or "none"
        alone = isinstance(value, str) and len(keys_by_value[value]) == 1 and not value.replace(".", "").isdigit()
        return text if alone else f"{short[key]}_{text}"

    found = []
    names: list[str] = []
    for point, keys in zip(points, shown, strict=True):
        head = [point[NAME]] if NAME in point else []
        full = "-".join([*head, *(format_part(key, point[key]) for key in keys)])
        names.append(full.encode()[:LONGEST_POINT].decode(errors="ignore"))
        label = ", ".join([*head, *(f"{short[key]} {point[key]}" for key in keys)])
        found.append(GridPoint(point, names[-1], label or ONLY_POINT))
    numbered = [name if names.count(name) == 1 else f"{name}-{at}" for at, name in enumerate(names)]
    return [replace(point, name=name.lstrip(".")) for point, name in zip(found, numbered, strict=True)]


def name_keys(keys: Iterable[str]) -> dict[str, str]:
    """Return the last part of each key, or as many parts as tell it from the others."""
    known = set(keys)
    if TEACHER_SEED in known:
        known.add("seed")  # a run's own, which the teacher's must not be taken for

    def find_suffix(key: str) -> str:
        parts = key.split(".")
        ends = [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]
        return next(end for end in ends if sum(f".{one}".endswith(f".{end}") for one in known) == 1 or end == key)

    return {key: find_suffix(key) for key in known}


def describe_point(point: Point) -> str:
    """Return a point's label where its grid is not at hand: all of its values."""
    short = name_keys(key for key in point if key != NAME)
    parts = [str(value) if key == NAME else f"{short[key]} {value}" for key, value in point.items()]
    return ", ".join(parts) or ONLY_POINT


def drop_key(label: str, key: str) -> str:
    """Return a label without the value of one key."""
    parts = [part.partition(" ") for part in label.split(", ")]
    kept = ["".join(part) for part in parts if not (part[1] and f".{key}".endswith(f".{part[0]}"))]
    return ", ".join(kept) or ONLY_POINT


def trim_labels(points: Sequence[str]) -> dict[str, str]:
    """Return the parts of each label that not all points share."""
    parts = {label: label.split(", ") for label in points}
    common = set.intersection(*map(set, parts.values())) if len(points) > 1 else set()
    return {label: ", ".join(part for part in parts[label] if part not in common) or label for label in points}


def list_runs(config: Config) -> list[StudyRun]:
    """Return all runs of a study, point by point.

    Raises:
        UserError: a key or value that the config does not take, or a hypothesis about none of the points.
    """
    points = list_points(config.study.grid)
    runs = [
        StudyRun(
            point.values,
            seed,
            _make_config(config, point, seed),
            point.label,
            point.drop_teacher(),
            point.teacher,
        )
        for point in points
        for seed in config.seeds
    ]
    for name, stated in config.study.hypotheses.items():
        averaged = [key for key in stated.where if any(key in point.teachers for point in points)]
        if averaged:
            raise UserError(
                f"study.hypotheses.{name}.where: the values of {averaged[0]} are teachers of one point: "
                "leave it out, or give each teacher an entry of its own"
            )
        if not any(has_values(point.values, stated.where) for point in points):
            raise UserError(f"study.hypotheses.{name}.where: no point of study.grid has these values")
    return runs


def has_values(point: Point, where: Point) -> bool:
    """Return True where a point has all the values of `where`."""
    return all(key in point and point[key] == value for key, value in where.items())


def _make_config(config: Config, point: GridPoint, seed: int) -> Config:
    """Return the config of a run: the study's with the point's values.

    Options of losses are not checked yet.
    """
    values = config.model_dump()
    given = _drop_name(point.values)
    for key in sorted(
        given, key=lambda key: isinstance(given[key], list) and key == "methods"
    ):  # choices come last
        if key in FIXED or key.startswith("study."):
            raise UserError(f"study.grid: {key} cannot be varied, a run has its own")
        values = set_key(values, key, given[key], f"study.grid: {key}")
    own = given.get(TEACHER_SEED, seed)  # cues follow the teacher, which has seen them
    for key in (TEACHER_SEED, "shortcut.seed"):
        values = set_key(values, key, own, f"study.grid: {key}")
    name = "-".join(filter(None, [point.name, f"seed{seed}"]))
    values |= {"name": name, "seeds": [seed], "study": Study().model_dump()}
    return validate(values, f"study.grid at {point.label}")


@dataclass(frozen=True)
class Shard:
    """The `number`-th, from 1, of `count` parts of a study."""

    number: int = 1
    count: int = 1

    def take(self, runs: Sequence[StudyRun], group: Callable[[StudyRun], Hashable]) -> list[StudyRun]:
        """Return the runs of this part; groups are dealt out in turn."""
        groups = {key: number for number, key in enumerate(dict.fromkeys(map(group, runs)))}
        return [run for run in runs if groups[group(run)] % self.count == self.number - 1]


def read_shard(text: str) -> Shard:
    """Return `2/8` as a shard.

    Raises:
        UserError: anything that is not I/N with 1 <= I <= N.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"--shard {text}: write I/N with I from 1 to N, for example --shard 2/8")
    return Shard(int(match[1]), int(match[2]))
