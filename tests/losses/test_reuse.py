from __future__ import annotations

import pytest
import torch
from torch import nn

from losses.loss import View
from losses.reuse import Reuse, compute_squared_error, fold
from tests.losses.batches import CLASSES, SIZES, make_batch

PROJECTED = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
TARGET = torch.tensor([[1.0, 0.0], [0.0, 5.0]])  # squared errors 0 4 and 9 1


@pytest.fixture
def loss() -> Reuse:
    torch.manual_seed(0)
    made = Reuse()
    made.setup(SIZES)
    return made


def test_squared_error_by_hand() -> None:
    assert compute_squared_error(PROJECTED, TARGET, None).item() == pytest.approx((0 + 4 + 9 + 1) / 4)


def test_weights_multiply_each_images_error() -> None:
    found = compute_squared_error(PROJECTED, TARGET, torch.tensor([0.5, 3.0]))
    assert found.item() == pytest.approx((0.5 * (0 + 4) / 2 + 3 * (9 + 1) / 2) / 2)
    alike = compute_squared_error(PROJECTED, TARGET, torch.ones(2))
    assert alike.item() == pytest.approx(compute_squared_error(PROJECTED, TARGET, None).item())


@pytest.mark.parametrize("weighted", [False, True])
def test_loss_is_a_loop_over_entries(loss: Reuse, weighted: bool) -> None:
    batch = make_batch(0, weighted=weighted)
    weights = batch.samples.weights if weighted else torch.ones(6)
    weight, bias = loss.projector.weight.double(), loss.projector.bias.double()
    expected = 0.0
    for image in range(6):
        projected = weight @ batch.student.taps["features"][image].double() + bias
        for channel, target in enumerate(batch.teacher.taps["features"][image].tolist()):
            expected += weights[image].item() * (projected[channel].item() - target) ** 2 / (6 * 6)
    assert loss(*batch).item() == pytest.approx(expected, rel=1e-5)


def test_fold_by_hand() -> None:
    projector, head, into = nn.Linear(1, 2), nn.Linear(2, 1), nn.Linear(1, 1)
    with torch.no_grad():
        projector.weight.copy_(torch.tensor([[2.0], [3.0]]))
        projector.bias.copy_(torch.tensor([1.0, -1.0]))
        head.weight.copy_(torch.tensor([[10.0, 100.0]]))
        head.bias.fill_(7.0)
    fold(projector, head, into)
    assert (into.weight.item(), into.bias.item()) == (10 * 2 + 100 * 3, 10 * 1 + 100 * -1 + 7)


def test_folded_classifier_equals_head_after_projector(loss: Reuse) -> None:
    batch, own = make_batch(1), nn.Linear(4, CLASSES)
    teachers = batch.teacher.classifier
    loss.fold_into(own, teachers)
    features = batch.student.taps["features"]
    expected = teachers.double()(loss.projector.double()(features.double()))
    torch.testing.assert_close(own(features).double(), expected, rtol=1e-5, atol=1e-5)


def test_answer_is_that_of_the_folded_classifier(loss: Reuse) -> None:
    batch, own = make_batch(1), nn.Linear(4, CLASSES)
    loss.fold_into(own, batch.teacher.classifier)
    answer = loss.predict_logits(batch.student, batch.teacher)
    torch.testing.assert_close(answer, own(batch.student.taps["features"]), rtol=1e-5, atol=1e-5)


def test_fold_leaves_projector_and_head_unchanged(loss: Reuse) -> None:
    teachers = make_batch(1).teacher.classifier
    before = [one.clone() for one in (*loss.parameters(), *teachers.parameters())]
    loss.fold_into(nn.Linear(4, CLASSES), teachers)
    after = [*loss.parameters(), *teachers.parameters()]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_perfect_projector_costs_nothing(loss: Reuse) -> None:
    batch = make_batch(3)
    projected = loss.projector(batch.student.taps["features"]).detach()
    taught = View(batch.teacher.logits, {"features": projected}, classifier=batch.teacher.classifier)
    assert loss(batch.student, taught, batch.samples).item() == 0
    expected = taught.classifier(projected)
    assert torch.equal(loss.predict_logits(batch.student, taught), expected)
