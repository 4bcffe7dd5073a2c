"""The config's section on studies: the grid, and what is stated before running."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError, field_validator, model_validator

from settings.names import RunName, check_name
from settings.section import Positive, Section, about

MARGIN = 0.02  # of a hypothesis that states neither a margin nor what the difference exceeds
NAME = "name"  # key of an entry of the grid that names its points
Name = Annotated[str, Field(pattern=r"^\w+$"), AfterValidator(check_name)]


def check_finite(value: Any) -> Any:
    """Return a plain value, refused where a number in it is not finite: it would not be read back as it is."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in parts:
        check_finite(part)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("give a finite number")
    return value


Plain = Annotated[Any, AfterValidator(check_finite)]


class Hypothesis(Section):
    measure: str = about(
        "top1", "what is compared, by its name in the report: top1, following, unbiased, clean, worst_group, ..."
    )
    first: str = about(..., "method from whose value the second's is taken")
    second: str = about(..., "method whose value is taken away")
    where: dict[str, Plain] = about({}, "values of the grid's keys for which it is stated, one test for each rest")
    margin: Positive | None = about(
        None, f"differences within +- margin count as equivalent (default: {MARGIN} without exceeds)"
    )
    exceeds: Annotated[float, Field(ge=-1, le=1)] | None = about(
        None, "in place of margin: first - second is claimed to be larger than this"
    )

    @model_validator(mode="before")
    @classmethod
    def _default_margin(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("margin") is None and values.get("exceeds") is None:
            return {**values, "margin": MARGIN}
        return values

    @model_validator(mode="after")
    def _check(self) -> Hypothesis:
        if self.first == self.second:
            raise ValueError(f"first and second are both {self.first}: name two methods")
        if self.margin is not None and self.exceeds is not None:
            raise ValueError("margin claims equivalence, exceeds a difference: give one of them")
        return self

    def says(self, other: Hypothesis) -> bool:
        """Return whether both claim the same; that two methods are equivalent can be said either way round."""
        turned = self.model_copy(update={"first": self.second, "second": self.first})
        return other == self or (self.margin is not None and other == turned)


class Study(Section):
    grid: list[dict[str, Plain]] = about(
        [],
        "entries of config keys, each with a list of values: every combination within an entry is a point, and "
        "every point with every seed is a run; `name: NAME` names an entry's points in folders and reports",
    )
    hypotheses: dict[Name, Hypothesis] = about(
        {},
        "what is stated before running, by name (H1, H2, ...): measure, first, second, where, margin or exceeds",
    )
    twins: dict[str, str] = about(
        {}, "methods of several stages, each with the method of one stage beside it, joined by a line in figures"
    )
    tries: dict[Name, Annotated[list[str], Field(min_length=1)]] = about(
        {}, "methods by family that are tries of one, for example rates: one of each is chosen on held-out images"
    )

    @field_validator("grid")
    @classmethod
    def _check_entries(cls, grid: list[dict[str, Any]]) -> list[dict[str, Any]]:
        names = [_read_name(entry[NAME]) for entry in grid if NAME in entry]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two entries are named {name}: give each a name of its own")
        for entry in grid:
            for key, values in entry.items():
                if key != NAME and not isinstance(values, list):
                    raise ValueError(f"{key} is {values!r}: give a list of values, [{values}] for one")
        return grid


def _read_name(name: Any) -> str:
    try:
        return TypeAdapter(RunName).validate_python(name)
    except ValidationError as error:
        raise ValueError(f"name {name!r}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
