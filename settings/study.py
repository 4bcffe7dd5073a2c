"""Section on studies: the grid, and the hypotheses stated before running."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError, field_validator, model_validator

from settings.section import Positive, RunName, Section, check_name, option

MARGIN = 0.02  # of a hypothesis that states neither margin nor exceeds
NAME = "name"  # key of an entry of the grid that names its points
Name = Annotated[str, Field(pattern=r"^\w+$"), AfterValidator(check_name)]


def check_finite(value: Any) -> Any:
    """Return a plain value, or raise `ValueError` for infinite numbers and NaN."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in parts:
        check_finite(part)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("give a finite number")
    return value


Plain = Annotated[Any, AfterValidator(check_finite)]


class Hypothesis(Section):
    measure: str = option("top1", "measure by its name in the report: top1, following, unbiased, worst_group, ...")
    first: str = option(..., "method whose value is compared")
    second: str = option(..., "method whose value is subtracted")
    where: dict[str, Plain] = option(
        {}, "values of the grid's keys to which it is limited, one test at each point"
    )
    margin: Positive | None = option(
        None, f"differences within +- margin count as equivalent (default: {MARGIN} without exceeds)"
    )
    exceeds: Annotated[float, Field(ge=-1, le=1)] | None = option(
        None, "in place of margin: the claim that first - second is larger than this"
    )

    @model_validator(mode="before")
    @classmethod
    def _set_default_margin(cls, values: Any) -> Any:
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

    def has_same_claim(self, other: Hypothesis) -> bool:
        """Return whether both make the same claim; equivalence has no direction."""
        turned = self.model_copy(update={"first": self.second, "second": self.first})
        return other == self or (self.margin is not None and other == turned)


class Study(Section):
    grid: list[dict[str, Plain]] = option(
        [],
        "entries of config keys, each with a list of values: every combination within an entry is a point, and "
        "every point with every seed is a run; `name: NAME` names an entry's points in folders and reports",
    )
    hypotheses: dict[Name, Hypothesis] = option(
        {}, "claims stated before running, by name (H1, H2, ...): measure, first, second, where, margin or exceeds"
    )
    twins: dict[str, str] = option(
        {}, "methods of several stages, each with its counterpart of one stage, joined by a line in figures"
    )
    tries: dict[Name, Annotated[list[str], Field(min_length=1)]] = option(
        {}, "tries of one method by family, for example rates: one of each is chosen on held-out images"
    )
    choose_by: Literal["held_out_top1", "held_out_kl"] = option(
        "held_out_top1",
        "measure that chooses among tries: held_out_top1 = accuracy on held-out images; held_out_kl = KL from the "
        "teacher, which prefers copies of a biased teacher",
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
