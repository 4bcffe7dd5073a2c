from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks import crd_step, reference
from benchmarks.timing import Timing


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for name, value in {"B": 8, "N": 400, "K": 64, "D": 16, "CLASSES": 5}.items():
        monkeypatch.setattr(crd_step, name, value)
    monkeypatch.setattr(crd_step, "matrix_rate", lambda dtype, **_: 1e9)
    torch.manual_seed(0)


@pytest.mark.parametrize(("bfloat16", "tolerance"), [(False, 1e-5), (True, 1e-2)])
def test_what_is_timed_computes_the_published_loss(bfloat16, tolerance):
    assert crd_step.loss_difference(bfloat16) < tolerance


def test_the_published_draw_has_the_sample_first_and_other_classes_after():
    labels = np.arange(400) % 5
    indices = np.array([3, 17, 250])
    drawn = reference.draw(labels, indices, 64, np.random.default_rng(0)).numpy()
    assert drawn.shape == (3, 65) and (drawn[:, 0] == indices).all()
    assert (labels[drawn[:, 1:]] != labels[indices][:, None]).all()
    assert all(len(set(row)) == 65 for row in drawn)


@pytest.mark.parametrize("case", crd_step.CASES)
def test_each_case_is_measured(case):
    if case == "torchdistill":
        pytest.importorskip("torchdistill")
    [timing] = crd_step.run(case)
    assert timing.seconds >= timing.fastest > 0 and timing.repeats >= 3
    assert (timing.floor is None) == (case in ("published", "torchdistill"))


@pytest.mark.parametrize("native", [True, False])
def test_bfloat16_is_measured_only_where_it_is_native(monkeypatch, native):
    monkeypatch.setattr(crd_step, "supports_bfloat16", lambda device: native)
    monkeypatch.setattr(crd_step, "in_own_process", lambda _, case: [Timing(case, 1.0, 1.0, 3, 5.0)])
    lines = [claim.what for claim in crd_step.claims()]
    assert ("CRD step: bfloat16, loss" in lines) is native
    assert ("CRD step: bfloat16 is not native here, left out" in lines) is not native
