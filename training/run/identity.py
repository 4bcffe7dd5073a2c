"""Images, cues and normalisation that a run was made from, in identity.json.

Resuming, later phases, evaluation and export compare them with what they find and refuse a change.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dataset.identity import DataIdentity, describe_differences
from dataset.prepare import TrainingData, compute_fingerprint
from errors import UserError, warn
from training.run.record_file import is_signed, read_record, write_record

NAME = "identity.json"


@dataclass(frozen=True)
class RunIdentity:
    """Images and cues, and the normalisation in use."""

    data: DataIdentity
    cues: str  # digest of the cues of the students' training images, empty without
    mean: list[float]
    std: list[float]

    def to_json(self) -> dict[str, Any]:
        """Return the values of identity.json."""
        return {"data": self.data.to_json(), "cues": self.cues, "mean": self.mean, "std": self.std}


READER = TypeAdapter(RunIdentity)


def compute_identity(data: TrainingData) -> RunIdentity:
    """Return the identity of a run on these images."""
    cues = "" if data.train.cues is None else compute_fingerprint("", data.train)
    return RunIdentity(data.identity, cues, data.mean.tolist(), data.std.tolist())


def write_identity(folder: Path, data: TrainingData) -> None:
    """Write identity.json of the run in `folder`."""
    write_record(folder / NAME, compute_identity(data).to_json())


def read_identity(folder: Path) -> RunIdentity | None:
    """Read identity.json of the run in `folder`; None, with a warning, where a user removed it as told.

    Raises:
        UserError: the record is damaged, or missing beside a signed config.yaml.
    """
    path = folder / NAME
    mend = (
        "put it back, or start over with --phase all --fresh; if the images are those of then, remove it and the "
        "first line of config.yaml, and they are no longer compared"
    )
    if not path.exists() and not is_signed(folder / "config.yaml"):
        warn(f"{path} is not there: the images of this run are not compared")
        return None
    values = read_record(path, mend)
    try:
        return READER.validate_json(json.dumps(values), strict=True)
    except ValidationError:
        raise UserError(f"{path} is not as it was written: {mend}") from None


def list_changes(folder: Path, data: TrainingData) -> list[str]:
    """Describe how `data` differ from what the run in `folder` was made from.

    Raises:
        UserError: as `read_identity`.
    """
    old, new = read_identity(folder), compute_identity(data)
    if old is None:
        return []
    found = describe_differences(old.data, new.data)
    if not found and old.cues != new.cues:
        found.append("the cues of the images changed")
    if not found and (old.mean, old.std) != (new.mean, new.std):
        found.append(f"data.mean or data.std was {old.mean}, {old.std}")
    return found


def check_identity(folder: Path, data: TrainingData) -> None:
    """Raise `UserError` where a run was made from other images, or with another normalisation."""
    found = list_changes(folder, data)
    if found:
        raise UserError(
            f"{folder} was made from other images: {'; '.join(found)}. Put them back, or start over with "
            "--phase all --fresh, or under another --set name=..."
        )
