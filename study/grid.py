"""From a config's grid to runs: points, the config and folder name of each run, and which machine does which.

A point is one combination of the grid's values; a run is a point with one seed, a run folder of its own.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from configs.merge import merge
from configs.names import LONGEST
from configs.reading import hint_for
from configs.schema import Config
from configs.study import Study
from errors import UserError

Point = Mapping[str, Any]  # dotted config keys and their values
MOST_POINTS = 10_000  # of a grid, whose combinations soon outgrow any machine
LONGEST_POINT = LONGEST - 28  # bytes of a point's name, behind which come a number and a seed
OF_RUN = ("name", "seeds", "study", "teacher.seed", "shortcut.seed")  # keys that each run has its own value of


@dataclass(frozen=True)
class StudyRun:
    """One run of a study."""

    point: Point
    seed: int
    config: Config

    @property
    def name(self) -> str:
        return self.config.name


def points_of(grid: Sequence[Mapping[str, list[Any]]]) -> list[Point]:
    """The combinations of each entry's values, equal ones once; an empty grid is one point without values.

    Raises:
        UserError: a key without values, or more combinations than `MOST_POINTS`.
    """
    points: list[Point] = []
    size = sum(math.prod(map(len, entry.values())) for entry in grid)
    if size > MOST_POINTS:
        raise UserError(f"study.grid: {size:,} combinations, at most {MOST_POINTS:,} are taken: name fewer values")
    for entry in grid or [{}]:
        for key, values in entry.items():
            if not values:
                raise UserError(f"study.grid: {key} has no values")
        sorted_keys = sorted(entry)  # the last of them changes fastest
        combinations = itertools.product(*(entry[key] for key in sorted_keys))
        found = [{key: values[sorted_keys.index(key)] for key in entry} for values in combinations]
        points += [point for point in found if point not in points]
    return points


def runs_of(config: Config) -> list[StudyRun]:
    """All runs of a study, point by point.

    Raises:
        UserError: a key or value that the config does not take, or a hypothesis about none of the points.
    """
    points = points_of(config.study.grid)
    names = point_names(points)
    runs = [
        StudyRun(point, seed, _config_of(config, point, seed, "-".join(filter(None, [name, f"seed{seed}"]))))
        for point, name in zip(points, names, strict=True)
        for seed in config.seeds
    ]
    for name, stated in config.study.hypotheses.items():
        if not any(agrees(point, stated.where) for point in points):
            raise UserError(f"study.hypotheses.{name}.where: no point of study.grid has these values")
    return runs


def agrees(point: Point, where: Point) -> bool:
    """Whether a point has all the values of `where`."""
    return all(key in point and point[key] == value for key, value in where.items())


def point_names(points: Sequence[Point]) -> list[str]:
    """A short name for each point that can be a folder's, all different; empty for the point without values.

    A word stands alone where only one key takes it, otherwise after its key's last part.
    """
    keys_of: dict[str, set[str]] = {}
    for point in points:
        for key, value in point.items():
            keys_of.setdefault(str(value), set()).add(key)
    every = {key for keys in keys_of.values() for key in keys}
    lasts = [key.rpartition(".")[2] for key in every]

    def part(key: str, value: Any) -> str:
        last = key.rpartition(".")[2]
        text = re.sub(r"[^\w.]+", "_", str(value)).strip("_") or "none"
        alone = isinstance(value, str) and len(keys_of[value]) == 1 and not value.replace(".", "").isdigit()
        return text if alone else f"{last if lasts.count(last) == 1 else key}_{text}"

    full = ["-".join(part(key, value) for key, value in point.items()) for point in points]
    names = [name.encode()[:LONGEST_POINT].decode(errors="ignore") for name in full]
    numbered = [name if names.count(name) == 1 else f"{name}-{at}" for at, name in enumerate(names)]
    return [name.lstrip(".") for name in numbered]


def _config_of(config: Config, point: Point, seed: int, name: str) -> Config:
    values = config.model_dump()
    for key, value in point.items():
        if key in OF_RUN or key.startswith("study."):
            raise UserError(f"study.grid: {key} cannot be varied, a run has its own")
        *sections, last = key.split(".")
        place = values
        for section in sections:
            place = place.setdefault(section, {}) if isinstance(place, dict) else {}
        if not isinstance(place, dict) or last not in place:
            raise UserError(_unknown(key))
        place |= merge(place, {last: value})
    values |= {"name": name, "seeds": [seed], "study": Study().model_dump()}
    values["teacher"]["seed"] = values["shortcut"]["seed"] = seed
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise UserError(f"study.grid at {dict(point)}: {where}: {problem['msg']}") from None


def _unknown(key: str) -> str:
    return f"study.grid: unknown key {key}{hint_for(key)}"


@dataclass(frozen=True)
class Shard:
    """The `number`-th, from 1, of `count` parts of a study."""

    number: int = 1
    count: int = 1

    def take(self, runs: Sequence[StudyRun], group: Callable[[StudyRun], Hashable]) -> list[StudyRun]:
        """The runs of this part: groups are dealt out in turn, so that all parts together are all runs once."""
        groups = {key: number for number, key in enumerate(dict.fromkeys(map(group, runs)))}
        return [run for run in runs if groups[group(run)] % self.count == self.number - 1]


def read_shard(text: str) -> Shard:
    """`2/8` as a shard.

    Raises:
        UserError: anything that is not I/N with 1 <= I <= N.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"--shard {text}: write I/N with I from 1 to N, for example --shard 2/8")
    return Shard(int(match[1]), int(match[2]))


def label_of(point: Point, without: str = "") -> str:
    """A point in words, as in the study's numbers."""
    parts = [f"{key.rpartition('.')[2]} {value}" for key, value in point.items() if key != without]
    return ", ".join(parts) or "the only point"
