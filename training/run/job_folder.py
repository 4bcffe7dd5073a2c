"""The folder of one trained network.

checkpoint.pt   what a resumed training needs; checkpoint.previous.pt is the one before. Removed at the end.
metrics.jsonl   one line an epoch, a function of config and seed alone
timing.jsonl    one line an epoch: images per second, seconds, peak memory
events.*        the same for TensorBoard
model.pt        the network as a plain state dict
projections.pt  of a stage that trains features: linear maps of its losses, for later comparisons
result.json     marks a finished job, with digests of the others: written last, removed first
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from errors import UserError
from models.checkpoint import copy_weights, get_previous_path, save
from models.whole import hash_file
from training.progress import check_history
from training.run.record_file import read_record, write_record

METRICS, PROJECTIONS = "metrics.jsonl", "projections.pt"
LEFT = ("*.pt", "*.jsonl", "events.*", "result.json")  # what a training leaves, finished or not
HINT = "put it back, or train it with --fresh (in a study, remove its folder)"


@dataclass(frozen=True)
class JobFolder:
    """Files of one job."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def model(self) -> Path:
        return self.path / "model.pt"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.pt"

    @property
    def metrics(self) -> Path:
        return self.path / METRICS

    @property
    def timing(self) -> Path:
        return self.path / "timing.jsonl"

    @property
    def has_files(self) -> bool:
        """Return whether a training has left anything here."""
        return any(True for pattern in LEFT for _ in self.path.glob(pattern))

    @property
    def has_result(self) -> bool:
        """Return whether training has ended; its files may be gone since."""
        return (self.path / "result.json").exists()

    @property
    def is_finished(self) -> bool:
        """Return whether training has ended and all its files are there.

        Raises:
            UserError: result.json is damaged.
        """
        return self.has_result and not self.list_missing_files()

    @property
    def is_unfinished(self) -> bool:
        """Return whether the folder is there and training has not ended."""
        return self.path.exists() and not self.has_result

    def list_missing_files(self) -> list[str]:
        """List files that a finished job has lost."""
        names = [self.model.name, *self.read_result().get("files", {})]
        return [name for name in names if not (self.path / name).exists()]

    def refuse_missing_files(self) -> None:
        """Raise `UserError` for a finished job that has lost files, which another training would hide."""
        if self.has_result and self.list_missing_files():
            raise UserError(
                f"{self.path / self.list_missing_files()[0]} is gone, and {self.name} was finished: {HINT}"
            )

    def verify_model(self) -> Path:
        """Return the file of weights after comparing all files with their digests.

        Raises:
            UserError: one was removed, replaced or edited.
        """
        self.refuse_missing_files()
        result = self.read_result()
        for name, digest in {self.model.name: result["model_sha256"], **result.get("files", {})}.items():
            if hash_file(self.path / name) != digest:
                raise UserError(f"{self.path / name} is not the file that training left: {HINT}")
        return self.model

    def read_result(self) -> dict[str, Any]:
        """Read result.json: what training reached, and digests of its files.

        Raises:
            UserError: it is missing or changed.
        """
        path = self.path / "result.json"
        result = read_record(path, HINT)
        files = result.get("files", {})
        if not isinstance(result.get("model_sha256"), str):
            raise UserError(f"{path} names no model_sha256: {HINT}")
        if not isinstance(files, dict) or not files.keys() <= {METRICS, PROJECTIONS}:
            raise UserError(f"{path} names files that training does not leave: {HINT}")
        return result

    def read_history(self) -> list[dict[str, float]]:
        """Read metrics.jsonl: the measures of each epoch.

        Raises:
            UserError: a damaged line.
        """
        if self.metrics.exists() and not self.metrics.is_file():  # reading a pipe would wait
            raise UserError(f"{self.metrics} is no file: {HINT}")
        try:
            lines = self.metrics.read_text(encoding="utf-8").splitlines() if self.metrics.exists() else []
            return check_history([json.loads(line) for line in lines])
        except (ValueError, RecursionError):
            raise UserError(f"{self.metrics} is damaged: {HINT}") from None

    def delete_result(self) -> None:
        """Remove result.json, so that the job is unfinished."""
        self._remove(lambda: (self.path / "result.json").unlink(missing_ok=True))

    def clear(self) -> None:
        """Remove the folder, result.json first.

        Raises:
            UserError: something could not be removed.
        """
        if self.path.exists():
            self.delete_result()
            self._remove(lambda: shutil.rmtree(self.path))

    def _remove(self, remove: Callable[[], object]) -> None:
        try:
            remove()
        except OSError as error:
            where = error.filename or self.path
            raise UserError(f"{where} cannot be removed ({error.strerror}): remove {self.path} by hand") from None

    def finish(self, model: nn.Module, result: Mapping[str, Any]) -> None:
        """Write the weights, then the result, and remove the checkpoints."""
        self.path.mkdir(parents=True, exist_ok=True)
        save(self.model, copy_weights(model))
        others = [self.path / name for name in (METRICS, PROJECTIONS) if (self.path / name).exists()]
        digests = {path.name: hash_file(path) for path in others}
        complete = {**result, "model_sha256": hash_file(self.model), "files": digests}
        write_record(self.path / "result.json", complete)
        self.drop_checkpoints()

    def drop_checkpoints(self) -> None:
        """Remove the checkpoints of a finished job; a kill may have come before that."""
        for path in (self.checkpoint, get_previous_path(self.checkpoint)):
            path.unlink(missing_ok=True)
