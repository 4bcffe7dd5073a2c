"""What a run was made from, kept in identity.json: its images with their cues, and how they are normalised.

Resuming, later phases, evaluation and export compare it with what they find, and refuse in one line that says what
changed. What the teacher was made from stands in its result.json.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset.identity import DataIdentity, differences
from dataset.prepare import TrainingData, fingerprint_of
from errors import UserError
from files import write_text

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

    @staticmethod
    def from_json(values: dict[str, Any]) -> RunIdentity:
        return RunIdentity(DataIdentity.from_json(values["data"]), values["cues"], values["mean"], values["std"])


def identity_of(data: TrainingData) -> RunIdentity:
    cues = "" if data.train.cues is None else fingerprint_of("", data.train)
    return RunIdentity(data.identity, cues, data.mean.tolist(), data.std.tolist())


def write_identity(folder: Path, data: TrainingData) -> None:
    write_text(folder / NAME, json.dumps(identity_of(data).to_json(), indent=1) + "\n")


def changes_since(folder: Path, data: TrainingData) -> list[str]:
    """What is not as it was when the run in `folder` was made, in words; nothing for a run that has no record."""
    path = folder / NAME
    if not path.exists():
        return []
    try:
        old = RunIdentity.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError):
        return [f"{path} is damaged"]
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
