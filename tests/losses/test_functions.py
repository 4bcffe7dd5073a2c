"""Of every loss that is a function of tensors: literals from other code, and the module around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from losses.at import AT, compute_at
from losses.cc import compute_cc
from losses.dist import DIST, compute_correlations, compute_dist
from losses.dkd import DKD, compute_dkd
from losses.itrd import ITRD, measure_correlation, measure_gram
from losses.kl import standardise
from losses.loss import Loss, Samples, View
from losses.maps import pool_to
from losses.pkt import PKT, compute_pkt
from losses.reviewkd import compute_hcl
from losses.rkd import RKD, compute_rkd
from losses.sp import SP, compute_sp
from losses.srrl import compute_srrl
from losses.wttm import WTTM, compute_wttm
from tests.losses.batches import SIZES, make_batch
from tests.losses.literals import (
    BIAS,
    LABELS,
    MAP,
    PROJECTED,
    STUDENT,
    TEACHER,
    TEACHER_MAP,
    WEIGHT,
    Z_STUDENT,
    Z_TEACHER,
)

WAVE = torch.arange(576, dtype=torch.float64)
BOTH = {"last": 1.0, "penultimate": 0.5}


def compute_with_classifier(student: Tensor, teacher: Tensor, *options: float | Tensor) -> Tensor:
    """Return SRRL of features, with the logits of the teacher's classifier."""
    return compute_srrl(
        student, teacher, F.linear(student, WEIGHT, BIAS), F.linear(teacher, WEIGHT, BIAS), *options
    )


# others have an epsilon of 1e-8 beside lengths: pkt and dist agree to seven digits
LITERALS = {
    "at": (compute_at, (MAP, TEACHER_MAP), 0.0394010833),
    "cc": (compute_cc, (PROJECTED, TEACHER), 7.0),
    "dist": (compute_dist, (Z_STUDENT, Z_TEACHER, 1, 1, 1), pytest.approx(3.2066345621, rel=5e-7)),
    "dist softened": (compute_dist, (Z_STUDENT, Z_TEACHER, 1, 1, 4), pytest.approx(54.0382612945, rel=5e-7)),
    "dkd": (compute_dkd, (Z_STUDENT, Z_TEACHER, LABELS, 1, 8, 4), 2.8897417813),
    "dkd standardised": (
        compute_dkd,
        (standardise(Z_STUDENT), standardise(Z_TEACHER), LABELS, 1, 8, 2),
        2.9183449909,
    ),
    "hcl": (compute_hcl, (WAVE.sin().view(3, 3, 8, 8), WAVE.cos().view(3, 3, 8, 8)), 0.6214672937),
    "itrd correlation": (measure_correlation, (PROJECTED, TEACHER, 1.5), 3.3732351320),
    "itrd gram": (measure_gram, (PROJECTED, TEACHER), 0.4571428571),
    "pkt": (compute_pkt, (STUDENT, TEACHER), pytest.approx(0.0006261550, rel=5e-7)),
    "rkd": (compute_rkd, (STUDENT, TEACHER, 25, 50), 4.7706507824),
    "sp": (compute_sp, (STUDENT, TEACHER), 0.0442897410),
    "srrl": (compute_with_classifier, (PROJECTED, TEACHER, 1, 1), 33.2222222222),
    "wttm": (compute_wttm, (Z_STUDENT, Z_TEACHER, 0.2), 0.8294560807),
}


@pytest.mark.parametrize("name", LITERALS)
def test_literals_of_other_code(name: str) -> None:
    function, given, expected = LITERALS[name]
    assert function(*given).item() == (pytest.approx(expected, abs=1e-10) if type(expected) is float else expected)


CERTAIN = torch.tensor([[300.0, 0, -300], [-300, 0, 300]])
EXTREMES: dict[str, tuple[Tensor, Callable[[Tensor], Tensor]]] = {
    "at, empty maps": (torch.zeros(2, 3, 2, 2), lambda student: compute_at(student, torch.rand(2, 3, 2, 2))),
    "dist, constant rows": (
        torch.ones(2, 3),
        lambda student: compute_correlations(student, torch.rand(2, 3)).sum(),
    ),
    "dkd, certain": (CERTAIN, lambda student: compute_dkd(student, -CERTAIN, torch.tensor([0, 1]), 1, 8, 1)),
    "pkt, opposite": (torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), lambda student: compute_pkt(student, torch.eye(2))),
    "rkd, one image": (torch.ones(1, 2), lambda student: compute_rkd(student, torch.rand(1, 2), 25, 50)),
    "rkd, equal features": (torch.ones(3, 2), lambda student: compute_rkd(student, torch.rand(3, 2), 25, 50)),
    "sp, empty features": (torch.zeros(3, 2), lambda student: compute_sp(student, torch.rand(3, 2))),
}


@pytest.mark.parametrize("name", EXTREMES)
def test_extreme_inputs_stay_finite(name: str) -> None:
    student, function = EXTREMES[name]
    student = student.clone().requires_grad_()
    loss = function(student)
    loss.backward()
    assert loss.isfinite() and student.grad.isfinite().all()


def test_constant_rows_have_no_correlation() -> None:
    assert compute_correlations(torch.ones(2, 3), torch.rand(2, 3)).tolist() == [0, 0]


Expected = Callable[[View, View, Samples], Tensor | Mapping[str, Tensor]]


def compare_taps(function: Callable[..., Tensor], taps: Mapping[str, float], *options: float) -> Expected:
    return lambda own, other, _: {tap: function(own.taps[tap], other.taps[tap], *options) for tap in taps}


def compare_maps(taps: Mapping[str, float]) -> Expected:
    return lambda own, other, _: {
        tap: compute_sp(own.maps[tap].reshape(6, -1), other.maps[tap].reshape(6, -1)) for tap in taps
    }


def compare_attention(own: View, other: View, samples: Samples) -> dict[str, Tensor]:
    larger = pool_to(other.maps["stage2"], 2)  # 4 x 4, the student's is 2 x 2
    others = {"stage1": other.maps["stage1"], "stage2": larger, "stage3": other.maps["stage3"]}
    return {tap: compute_at(own.maps[tap], maps, samples.weights) for tap, maps in others.items()}


MODULES: dict[str, tuple[Loss, Expected]] = {
    "at": (AT(), compare_attention),
    "rkd": (RKD(), compare_taps(compute_rkd, {"last": 1.0}, 25, 50)),
    "rkd, options": (RKD(BOTH, 2.0, 3.0), compare_taps(compute_rkd, BOTH, 2, 3)),
    "pkt": (PKT(), compare_taps(compute_pkt, {"last": 1.0})),
    "pkt, taps": (PKT(BOTH), compare_taps(compute_pkt, BOTH)),
    "sp": (SP(), compare_maps({"last_stage": 1.0})),
    "sp, taps": (SP({"stage1": 1.0, "stage3": 2.0}), compare_maps({"stage1": 1.0, "stage3": 2.0})),
    "dist": (DIST(0.5, 3.0, 2.0), lambda own, other, _: compute_dist(own.logits, other.logits, 0.5, 3, 2)),
    "dist, standardised": (
        DIST(standardise=True),
        lambda own, other, _: compute_dist(standardise(own.logits), standardise(other.logits), 1, 1, 4),
    ),
    "dkd": (
        DKD(0.5, 3.0, 2.0),
        lambda own, other, x: compute_dkd(own.logits, other.logits, x.labels, 0.5, 3, 2, x.weights),
    ),
    "dkd, standardised": (
        DKD(standardise=True),
        lambda own, other, x: compute_dkd(
            standardise(own.logits), standardise(other.logits), x.labels, 1, 8, 4, x.weights
        ),
    ),
    "wttm": (WTTM(0.3), lambda own, other, x: compute_wttm(own.logits, other.logits, 0.3, x.weights)),
    "wttm, standardised": (
        WTTM(standardise=True),
        lambda own, other, x: compute_wttm(standardise(own.logits), standardise(other.logits), 0.2, x.weights),
    ),
}


@pytest.mark.parametrize("name", MODULES)
def test_module_is_the_function_of_its_options(name: str) -> None:
    loss, expected = MODULES[name]
    batch = make_batch(0, weighted=True)
    loss.setup(SIZES)
    torch.testing.assert_close(loss(*batch), expected(*batch))


def test_itrd_is_the_function_of_projected_features() -> None:
    student, teacher, _ = batch = make_batch(0)
    loss = ITRD(BOTH, 1.2, 3.0, 0.5)
    loss.setup(SIZES)
    for tap, term in loss(*batch).items():
        own, other = loss.projection[tap](student.taps[tap]), teacher.taps[tap]
        expected = 3 * measure_correlation(own, other, 1.2) + 0.5 * measure_gram(own, other)
        torch.testing.assert_close(term, expected)
    assert (ITRD().alpha, ITRD().correlation, ITRD().gram) == (1.5, 2.0, 1.0)
