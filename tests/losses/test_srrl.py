from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from losses.srrl import SRRL, compute_srrl
from tests.losses.batches import SIZES, make_batch
from tests.losses.literals import BIAS, PROJECTED, TEACHER, WEIGHT, draw


@pytest.fixture
def loss() -> SRRL:
    torch.manual_seed(0)
    made = SRRL("last_stage", 0.5, 3.0)
    made.setup(SIZES)
    return made


def compute_with_classifier(
    student: Tensor, teacher: Tensor, alpha: float = 1, beta: float = 1, weights: Tensor | None = None
) -> Tensor:
    logits = F.linear(student, WEIGHT, BIAS), F.linear(teacher, WEIGHT, BIAS)
    return compute_srrl(student, teacher, *logits, alpha, beta, weights)


@pytest.mark.parametrize("weighted", [False, True])
def test_loss_is_a_loop_over_entries(weighted: bool) -> None:
    student, teacher = draw(4, 3).numpy(), draw(4, 3, seed=1).numpy()
    weights = torch.linspace(0, 2, 4).double() if weighted else None
    expected = 0.0
    for image in range(4):
        features = sum((student[image, d] - teacher[image, d]) ** 2 for d in range(3)) / 3
        logits = 0.0
        for row, shift in zip(WEIGHT.numpy(), BIAS.numpy(), strict=True):
            logits += ((row @ student[image] + shift) - (row @ teacher[image] + shift)) ** 2 / 2
        expected += (weights[image].item() if weighted else 1) * (0.5 * features + 3 * logits) / 4
    found = compute_with_classifier(torch.tensor(student), torch.tensor(teacher), 0.5, 3, weights)
    assert found.item() == pytest.approx(expected, rel=1e-10)


def test_logits_term_is_error_behind_the_classifier() -> None:
    expected = ((PROJECTED - TEACHER) @ WEIGHT.T).square().mean()
    torch.testing.assert_close(compute_with_classifier(PROJECTED, TEACHER, alpha=0), expected)
    assert compute_with_classifier(TEACHER, TEACHER).item() == 0


def test_module_is_the_function_behind_its_connector(loss: SRRL) -> None:
    student, teacher, samples = batch = make_batch(0, weighted=True)
    convolution, norm, _ = loss.connector
    mixed = torch.einsum("bchw,dc->bdhw", student.maps["last_stage"], convolution.weight[:, :, 0, 0])
    mean, variance = mixed.mean(dim=(0, 2, 3)), mixed.var(dim=(0, 2, 3), unbiased=False)
    shape = (1, -1, 1, 1)
    normed = (mixed - mean.view(shape)) / (variance.view(shape) + norm.eps).sqrt()
    own, other = normed.clamp(min=0).mean(dim=(2, 3)), teacher.maps["last_stage"].mean(dim=(2, 3))
    logits = teacher.classifier(own), teacher.classifier(other)
    torch.testing.assert_close(loss(*batch), compute_srrl(own, other, *logits, 0.5, 3.0, samples.weights))
    assert (SRRL().tap, SRRL().alpha, SRRL().beta) == ("last_stage", 1.0, 1.0)


def test_teachers_classifier_stays_frozen(loss: SRRL) -> None:
    student, teacher, samples = make_batch(0)
    loss(student, teacher, samples).backward()
    assert all(one.grad is None for one in teacher.classifier.parameters())
    assert all(one.grad.abs().sum() > 0 for one in loss.parameters())


def test_maps_the_classifier_cannot_read_are_named(loss: SRRL) -> None:
    student, teacher, samples = make_batch(0)
    wider = replace(teacher, classifier=nn.Linear(7, 4))
    with pytest.raises(ValueError, match="srrl.tap: last_stage has 6 channels .* reads 7: name the last stage"):
        loss(student, wider, samples)
