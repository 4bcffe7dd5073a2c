"""The folder that an export leaves: all of it or none, and never over what is somebody else's."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diagnostics.export.quantize import QUANTIZED
from errors import UserError
from files import new_folder
from models.export import ONNX, PROGRAM, SAFETENSORS, WEIGHTS

METADATA, PREPROCESSING, CARD, SCRIPT = "metadata.json", "preprocessing.json", "README.md", "predict.py"
MADE_BY = "main_eval.py --export"  # under `made_by` in metadata.json: tells a folder of ours
OURS = {METADATA, PREPROCESSING, CARD, SCRIPT, WEIGHTS, SAFETENSORS, PROGRAM, ONNX, f"{ONNX}.data", QUANTIZED}


def refuse_foreign(folder: Path) -> None:
    """Raise `UserError` where a folder holds what no export has written, which a new export would remove."""
    names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    if not names:
        return
    strange = [name for name in names if name not in OURS]
    if strange or not _is_marked(folder / METADATA):
        example = (strange or names)[0]
        raise UserError(f"--export {folder}: it holds other files ({example}), name a new or an empty folder")


def _is_marked(path: Path) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("made_by") == MADE_BY


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder to fill, which takes the place of `folder` at the end, an earlier export's too.

    Raises:
        UserError: as `refuse_foreign`, before and after.
    """
    refuse_foreign(folder)
    folder = folder.resolve()  # a link keeps pointing at it
    with new_folder(folder, replace=True) as partial:
        yield partial
        for path in partial.iterdir():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        refuse_foreign(folder)
