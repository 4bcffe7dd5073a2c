"""The config's section on studies: the grid and what is stated of it before running."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from configs.names import check_name
from configs.section import Positive, Section, about

MARGIN = 0.02  # of a hypothesis that states neither a margin nor what the difference exceeds
Name = Annotated[str, Field(pattern=r"^\w+$"), AfterValidator(check_name)]


class Hypothesis(Section):
    measure: Literal["following", "unbiased", "clean", "worst_group"] = about(
        "following", "what is compared, in 0..1"
    )
    first: str = about("crd_kd", "method from whose value the second's is taken")
    second: str = about("two_stage", "method whose value is taken away")
    where: dict[str, Any] = about({}, "values of the grid's keys for which it is stated, one test for each rest")
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
        """Whether both claim the same; that two methods are equivalent can be said either way round."""
        turned = self.model_copy(update={"first": self.second, "second": self.first})
        return other == self or (self.margin is not None and other == turned)


class Study(Section):
    grid: list[dict[str, list[Any]]] = about(
        [], "config keys and their values; every combination within an entry, and every seed, is a run"
    )
    hypotheses: dict[Name, Hypothesis] = about(
        {},
        "what is stated before running, by name (H1, H2, ...): measure, first, second, where, margin or exceeds",
    )
    twins: dict[str, str] = about(
        {},
        "two-stage methods and the end-to-end method that each is to be seen beside, joined by a line in figures",
    )
    tries: dict[Name, Annotated[list[str], Field(min_length=1)]] = about(
        {}, "methods by family that are tries of one, for example rates: one of each is chosen on held-out images"
    )
