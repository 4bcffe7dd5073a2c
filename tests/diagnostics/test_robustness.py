from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from dataset.corruptions import apply_degradation
from diagnostics.robustness import DegradedImages, compute_mean_corruption_error

TEACHER = {"jpeg": [0.1, 0.1, 0.2, 0.2, 0.4], "contrast": [0.0, 0.1, 0.1, 0.1, 0.2]}
STUDENT = {"jpeg": [0.2, 0.2, 0.2, 0.4, 0.5], "contrast": [0.1, 0.1, 0.1, 0.1, 0.1]}


@pytest.mark.parametrize("fits", [True, False])
def test_degraded_images_are_kept_where_they_fit(monkeypatch, fits) -> None:
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr("diagnostics.robustness.KEPT_BYTES", images.nbytes * 30 - (not fits))
    degraded = DegradedImages(images)
    once = degraded.get("jpeg", 3)
    assert torch.equal(once, apply_degradation(images, "jpeg", 3)) and not torch.equal(
        degraded.get("jpeg", 5), once
    )
    assert (degraded.get("jpeg", 3) is once) == fits


def test_mean_corruption_error_by_hand() -> None:
    result = compute_mean_corruption_error(STUDENT, TEACHER)
    assert result.by_corruption == {"jpeg": pytest.approx(1.5), "contrast": pytest.approx(1.0)}
    assert result.mean == pytest.approx(1.25)
    assert compute_mean_corruption_error(TEACHER, TEACHER).mean == 1.0


def test_a_reference_without_errors_gives_no_ratio() -> None:
    result = compute_mean_corruption_error(STUDENT, TEACHER | {"contrast": [0.0] * 5})
    assert result.mean is None
    assert result.by_corruption == {"jpeg": pytest.approx(1.5), "contrast": None}
    assert result.notes["mean"] == "The reference never errs under contrast."
    json.dumps(dataclasses.asdict(result), allow_nan=False)
