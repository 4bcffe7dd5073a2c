"""What a run was made from, kept in identity.json: its images with their cues, and how they are normalised.

Resuming, later phases, evaluation and export compare it with what they find, and refuse in one line that says what
changed. What the teacher was made from stands in its result.json.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dataset.identity import DataIdentity, differences
from dataset.prepare import TrainingData, fingerprint_of
from errors import UserError, warn
from training.run.record_file import is_signed, read_record, write_record

NAME = "identity.json"


@dataclass(frozen=True)
class RunIdentity:
    """Images and cues, and the normalisation in use."""

    data: DataIdentity
    cues: str  # digest of the cues of the images that students train on, empty without
    mean: list[float]
    std: list[float]

    def to_json(self) -> dict[str, Any]:
        return {"data": self.data.to_json(), "cues": self.cues, "mean": self.mean, "std": self.std}


READER = TypeAdapter(RunIdentity)


def identity_of(data: TrainingData) -> RunIdentity:
    cues = "" if data.train.cues is None else fingerprint_of("", data.train)
    return RunIdentity(data.identity, cues, data.mean.tolist(), data.std.tolist())


def write_identity(folder: Path, data: TrainingData) -> None:
    write_record(folder / NAME, identity_of(data).to_json())


def read_identity(folder: Path) -> RunIdentity | None:
    """Read what the run in `folder` was made from; None, with a warning, for a run that kept no record.

    Raises:
        UserError: the record is damaged, or gone from a run that had one.
    """
    path = folder / NAME
    mend = (
        "put it back, or start over with --phase all --fresh; if the images are those of then, remove it and the "
        "first line of config.yaml, and they are no longer compared"
    )
    if not path.exists() and not is_signed(folder / "config.yaml"):
        warn(f"{path} is not there, an earlier version made this run: its images are not compared")
        return None
    values = read_record(path, mend)
    try:
        return READER.validate_json(json.dumps(values), strict=True)
    except ValidationError:
        raise UserError(f"{path} is not as it was written: {mend}") from None


def changes_since(folder: Path, data: TrainingData) -> list[str]:
    """Return what is not as it was when the run in `folder` was made, in words; nothing without a record.

    Raises:
        UserError: as `read_identity`.
    """
    old = read_identity(folder)
    if old is None:
        return []
    new = identity_of(data)
    found = differences(old.data, new.data)
    if not found and old.cues != new.cues:
        found.append("the cues of the images changed")
    if not found and (old.mean, old.std) != (new.mean, new.std):
        found.append(f"data.mean or data.std was {old.mean}, {old.std}")
    return found


def check_identity(folder: Path, data: TrainingData) -> None:
    """Raise `UserError` where a run was made from other images, or normalised otherwise."""
    found = changes_since(folder, data)
    if found:
        raise UserError(
            f"{folder} was made from other images: {'; '.join(found)}. Put them back, or start over with "
            "--phase all --fresh, or under another --set name=..."
        )
