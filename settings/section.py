"""Building blocks of the config: strict sections, options with a description, ranges, names of folders."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Sequence
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

Fraction = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
LARGEST, MOST = 1e38, 2**53  # float32 holds reals up to about 3.4e38, and float64 each count up to 2**53
Positive = Annotated[float, Field(gt=0, le=LARGEST)]
NonNegative = Annotated[float, Field(ge=0, le=LARGEST)]
Means = Annotated[list[Fraction], Field(min_length=3, max_length=3)]
Deviations = Annotated[list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=3, max_length=3)]
Count = Annotated[int, Field(ge=1, le=MOST)]
Number = Annotated[int, Field(ge=0, le=MOST)]
FilePath = Annotated[Path, AfterValidator(lambda path: Path(os.path.expanduser(path)))]  # ~ is the home folder
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]

MOST_SHOWN = 200  # characters of a value in a message
MAX_NAME_BYTES = 100  # of the 255 that file systems take: seeds, suffixes and temporary files are appended
DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)  # reserved by Windows


def check_name(name: str) -> str:
    """Return a name that every file system takes as a folder's.

    Raises:
        ValueError: `.`, `..`, an ending that gets lost, a device's name, or more than `MAX_NAME_BYTES` bytes.
    """
    size = len(name.encode("utf-8", "surrogatepass"))
    if name.strip(".") == "":
        raise ValueError("a name of dots alone is a folder that exists already, choose another")
    if name.endswith("."):
        raise ValueError("some file systems drop a dot at the end, leave it out")
    if name.startswith("-"):
        raise ValueError("a dash at the beginning reads as an option, choose another")
    if DEVICES.fullmatch(name):
        raise ValueError("the name of a device on some systems, choose another")
    if size > MAX_NAME_BYTES:
        raise ValueError(f"{size} bytes are too many for a folder's name, use at most {MAX_NAME_BYTES}")
    return name


RunName = Annotated[str, Field(pattern=r"^[\w.-]+$"), AfterValidator(check_name)]
MethodName = Annotated[str, Field(pattern=r"^[a-z0-9_]+$"), AfterValidator(check_name)]


def option(default: Any, description: str) -> Any:
    """Return a field with its one-line description."""
    return Field(default, description=description)


def count_share(share: float, total: int) -> int:
    """Return a decimal share of a number as written, halves rounded up: 0.7 of 60,000 is 42,000."""
    return int((Decimal(str(share)) * total).quantize(Decimal(1), ROUND_HALF_UP))


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_boolean_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse `yes`, `on` and `true`, which YAML reads as 1 where a number is wanted."""
        parts = list(value.values()) if isinstance(value, dict) else value
        if any(isinstance(part, bool) for part in (parts if isinstance(parts, list) else [parts])):
            wanted = str(cls.model_fields[str(info.field_name)].annotation)
            is_section = isinstance(value, dict) and "[" not in wanted  # which checks its own values
            if not is_section and "bool" not in wanted and "Any" not in wanted:
                raise ValueError(
                    "true and false (yes, no, on, off) are no value here, quote them or give a number"
                )
        return value


def iterate_fields(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any, Any, str]]:
    """Yield key, annotation, default and description of every option."""
    for name, field in type(section).model_fields.items():
        default = getattr(section, name)
        if isinstance(default, BaseModel):
            yield from iterate_fields(default, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field.annotation, default, field.description or ""


def list_keys(section: type[BaseModel], prefix: str = "") -> list[str]:
    """Return the dotted keys of all options, optional sections included."""
    keys: list[str] = []
    for name, field in section.model_fields.items():
        kind = field.annotation
        kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
        inner = [one for one in kinds if isinstance(one, type) and issubclass(one, Section)]
        keys += list_keys(inner[0], f"{prefix}{name}.") if inner else [f"{prefix}{name}"]
    return keys


def describe_problem(error: ValidationError, section: type[BaseModel], prefix: str = "") -> str:
    """Return the first problem that pydantic found as one line.

    Args:
        error: of the section.
        section: whose keys are suggested for an unknown one.
        prefix: of the section's keys, with its dot.
    """
    problem = error.errors()[0]
    key = f"{prefix}{'.'.join(map(str, problem['loc']))}".rstrip(".")
    if problem["type"] == "extra_forbidden":
        hint = suggest_keys(key, list_keys(section, prefix))
        return f"unknown key {key}{hint} (python main.py --help-config lists all)"
    message = problem["msg"].removeprefix("Value error, ")
    given = "" if isinstance(problem["input"], dict | BaseModel) else f", not {_shorten(repr(problem['input']))}"
    return f"{key}: {message}{given}" if key else message


def _shorten(text: str) -> str:
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def suggest_keys(key: str, known: Sequence[str]) -> str:
    """Return the end of a message: keys near an unknown one, or beside it."""
    section, _, name = key.rpartition(".")
    prefix = f"{section}." if section else ""
    siblings = dict.fromkeys(one.removeprefix(prefix).partition(".")[0] for one in known if one.startswith(prefix))
    near = [f"{prefix}{one}" for one in difflib.get_close_matches(name, siblings, n=1, cutoff=0.65)]
    same = [one for one in known if one.rpartition(".")[2] == name]
    meant = near or [one for one in same if one.startswith(prefix)] or same
    if 0 < len(meant) <= 4:
        return f", did you mean {' or '.join(repr(one) for one in meant)}?"
    return f": {section} has {', '.join(siblings)}" if section and siblings else ""
