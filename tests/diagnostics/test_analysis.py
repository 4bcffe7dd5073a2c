from __future__ import annotations

import numpy as np

from diagnostics.analysis import similarity
from diagnostics.recording import Meta, RecordedModel


def recorded(features: np.ndarray) -> RecordedModel:
    half = features.astype(np.float16)
    meta = Meta("kd", "kd", 0, "resnet8", "", True, True, [], ["last"], [half.shape[1]], None)
    no_corruptions = np.empty((0, 0, 0), dtype=np.int32)
    return RecordedModel(meta, half.astype(np.float32), half, half, half, half, no_corruptions, {})


def test_minibatch_cka_does_not_depend_on_images_standing_by_class():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(40), 50)  # as class folders are read
    centres = rng.normal(size=(40, 12))
    teacher = centres[labels] + 0.5 * rng.normal(size=(2000, 12))
    student = centres[labels][:, :8] + 0.5 * rng.normal(size=(2000, 8))
    told = similarity(recorded(teacher), recorded(student))
    exact = told.last.linear.value
    assert 0.2 < exact < 0.9
    assert abs(told.last.linear_minibatch / exact - 1) < 0.02
    assert abs(told.layers.matrix.values[0][0] / exact - 1) < 0.02
