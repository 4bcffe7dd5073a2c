"""Parts of the pages of all reports: templates, pictures in them, links beside them, facts as lines."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from diagnostics.figures.style import DPI

HERE = Path(__file__).parent


def load_template(path: Path) -> Template:
    """Return a page's template, which may use those beside it and beside this file; an unknown name fails."""
    environment = Environment(
        loader=FileSystemLoader([path.parent, HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(path.name)


def list_files(
    tables: Iterable[str], pictures: Iterable[str], others: Iterable[str] = ("predictions.csv",)
) -> list[str]:
    """Return the files that a report writes beside its page, as links from it."""
    kept = [f"tables/{name}.{kind}" for name in tables for kind in ("csv", "tex")]
    drawn = [f"figures/{name}.{kind}" for name in pictures for kind in ("pdf", "png")]
    return ["report.json", *others, *kept, *drawn]


def embed_picture(picture: bytes) -> dict[str, Any]:
    """Return a PNG as text, with its size in CSS pixels, so that the page does not jump while it loads."""
    width, height = struct.unpack(">II", picture[16:24])
    data = base64.b64encode(picture).decode()
    return {"data": data, "width": width * 96 // DPI, "height": height * 96 // DPI}


def list_facts(
    evaluated_on: Mapping[str, Any] | None, trained_on: Mapping[str, Any] | None
) -> dict[str, dict[str, str]]:
    """Return versions and hardware, of the evaluation and of the training, as lines of text."""
    places = {"Evaluated on": evaluated_on, "Trained on": trained_on}
    return {
        place: {key: _format_fact(value) for key, value in known.items()}
        for place, known in places.items()
        if known
    }


def _format_fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_format_fact(part)}" for key, part in value.items())
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return "unknown" if value is None else str(value)
