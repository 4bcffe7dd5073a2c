from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import logsumexp

from diagnostics.evaluation import analysis
from diagnostics.evaluation.analysis import compare_features, compute_contrastive_bound
from diagnostics.evaluation.recording import Context, Meta, RecordedModel, Recording


def make_recorded(features: np.ndarray) -> RecordedModel:
    half = features.astype(np.float16)
    meta = Meta("kd", "kd", 0, "resnet8", "", True, True, [], ["last"], [half.shape[1]], None)
    no_corruptions = np.empty((0, 0, 0), dtype=np.int32)
    return RecordedModel(meta, half.astype(np.float32), half, half, half, half, no_corruptions, {})


def test_minibatch_cka_ignores_the_order_of_images() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(40), 50)  # as class folders are read
    centres = rng.normal(size=(40, 12))
    teacher = centres[labels] + 0.5 * rng.normal(size=(2000, 12))
    student = centres[labels][:, :8] + 0.5 * rng.normal(size=(2000, 8))
    told = compare_features(make_recorded(teacher), [make_recorded(student)])["kd"]
    exact = told.last.linear.value
    assert 0.2 < exact < 0.9
    assert abs(told.last.linear_minibatch / exact - 1) < 0.02
    assert abs(told.layers.matrix.values[0][0] / exact - 1) < 0.02


def test_contrastive_bound_takes_other_images_as_negatives() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(600, 5)).astype(np.float16)
    projections = {f"last.{side}.weight": np.eye(5, dtype=np.float32) for side in ("student", "teacher")}
    projections |= {name.replace("weight", "bias"): np.zeros(5, np.float32) for name in projections}
    teacher = make_recorded(features)
    stage1 = replace(make_recorded(features), projections=projections)
    stage1 = replace(stage1, meta=replace(stage1.meta, method="stage1"))
    crd = {"temperature": 0.1, "objective": "nce", "mode": "exact", "negatives": "bank", "num_negatives": 9999}

    def make_staged(**losses: dict) -> Recording:
        methods = {"mine": {"stage1": {"losses": losses}, "stage2": {}}, "kd": {"stage1": {}}}
        context, nothing = Context("run", {"methods": methods}, [], "", False, {}, None), np.arange(0)
        return Recording(context, np.zeros(600, np.int64), nothing, nothing, nothing, nothing, [])

    recording = make_staged(crd=crd)
    bound = compute_contrastive_bound(teacher, stage1, recording)
    unit = features.astype(float) / np.linalg.norm(features.astype(float), axis=1, keepdims=True)
    losses = []
    for rows in analysis._draw_minibatches(600)[:2]:
        scores = unit[rows] @ unit[rows].T / 0.1
        losses.append(np.mean(logsumexp(scores, axis=1) - np.diag(scores)))
    # before, K was the config's number of negatives and L the training loss, whatever the images and the mode
    assert bound.negatives == 255 and bound.loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert bound.value == pytest.approx(np.log(255) - np.mean(losses), rel=1e-5)
    assert (
        compute_contrastive_bound(teacher, replace(stage1, meta=replace(stage1.meta, method="kd")), recording)
        is None
    )
    assert compute_contrastive_bound(teacher, make_recorded(features), recording) is None
    assert compute_contrastive_bound(teacher, stage1, make_staged(regression={"ridge": 0.01})) is None
