"""What sections of the config are made of: ranges of numbers, fields with a description, strict models."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Deviation = Annotated[float, Field(gt=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]

BOOLEAN = "true and false (yes, no, on, off) are no value here, quote them or give a number"


def about(default: Any, description: str, **kwargs: Any) -> Any:
    """A field with its one-line description."""
    return Field(default, description=description, **kwargs)


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML reads `yes`, `on` and `true` as 1 where a number is wanted."""
        parts = list(value.values()) if isinstance(value, dict) else value
        if any(isinstance(one, bool) for one in (parts if isinstance(parts, list) else [parts])):
            wanted = str(cls.model_fields[str(info.field_name)].annotation)  # slow, and hardly ever needed
            is_section = isinstance(value, dict) and "[" not in wanted  # which looks at its own values
            if not is_section and "bool" not in wanted and "Any" not in wanted:
                raise ValueError(BOOLEAN)
        return value
