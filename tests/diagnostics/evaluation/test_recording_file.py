from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from diagnostics.evaluation import recording_file
from diagnostics.evaluation.analysis import compute_report
from tests.diagnostics.report.test_folder import recordings, usual


def write_and_read(tmp_path, found):
    with open(tmp_path / "predictions.npz", "wb") as file:
        recording_file.write_recording(found, file)
    return recording_file.read_recording(tmp_path / "predictions.npz")


def change(found, position: int, **changes: Any):
    models = list(found.models)
    models[position] = replace(models[position], **changes)
    return replace(found, models=models)


@pytest.mark.parametrize("name", ["penultimate", "last", "layers"])
def test_infinite_features_are_refused(tmp_path, name) -> None:
    found = recordings(usual())
    detailed = next(at for at, model in enumerate(found.models) if model.meta.detailed)
    features = np.full_like(getattr(found.models[detailed], name), np.inf)
    with pytest.raises(ValueError, match=f"{name} of .* holds NaN or infinity"):
        write_and_read(tmp_path, change(found, detailed, **{name: features}))


@pytest.mark.parametrize("wrong", ["width", "bias", "rows"])
def test_projections_of_another_shape_are_refused(tmp_path, wrong) -> None:
    found = recordings(usual())
    teacher = next(model for model in found.models if model.meta.method == "teacher")
    position = next(at for at, model in enumerate(found.models) if model is not teacher and model.meta.detailed)
    own, theirs = found.models[position].last.shape[1], teacher.last.shape[1]
    maps = {
        "last.student.weight": np.zeros((4, own + (wrong == "width")), np.float32),
        "last.student.bias": np.zeros(4 + (wrong == "bias"), np.float32),
        "last.teacher.weight": np.zeros((4 + (wrong == "rows"), theirs), np.float32),
        "last.teacher.bias": np.zeros(4 + (wrong == "rows"), np.float32),
    }
    with pytest.raises(ValueError, match="projected to different sizes|has no .* channels"):
        write_and_read(tmp_path, change(found, position, projections=maps))


def test_unsigned_labels_give_the_same_report(tmp_path) -> None:
    found = recordings(usual())
    unsigned = write_and_read(tmp_path, replace(found, labels=found.labels.astype(np.uint8)))
    assert compute_report(unsigned).models == compute_report(found).models
