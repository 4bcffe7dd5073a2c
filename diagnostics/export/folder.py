"""The folder of an export: whole or absent, never over foreign files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diagnostics.export.quantize import QUANTIZED
from errors import UserError
from files import create_folder
from models.export import ONNX, PROGRAM, WEIGHTS

METADATA, PREPROCESSING, CARD, SCRIPT = "metadata.json", "preprocessing.json", "README.md", "predict.py"
MADE_BY = "main_eval.py --export"  # under `made_by` in metadata.json: marks a folder as an export
FILES = {METADATA, PREPROCESSING, CARD, SCRIPT, WEIGHTS, PROGRAM, ONNX, f"{ONNX}.data", QUANTIZED}


def refuse_foreign(folder: Path) -> None:
    """Raise `UserError` where an export would remove foreign files."""
    names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    foreign = [name for name in names if name not in FILES]
    if names and (foreign or not _is_export(folder / METADATA)):
        example = (foreign or names)[0]
        raise UserError(f"--export {folder}: it holds other files ({example}), name a new or an empty folder")


def _is_export(metadata: Path) -> bool:
    try:
        content = json.loads(metadata.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("made_by") == MADE_BY


@contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder, which then takes the place of `folder`.

    Raises:
        UserError: as `refuse_foreign`, before and after.
    """
    refuse_foreign(folder)
    folder = folder.resolve()  # a link keeps pointing at it
    with create_folder(folder, replace=True) as partial:
        yield partial
        for path in partial.iterdir():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        refuse_foreign(folder)
