from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
import torch.nn.functional as F

from losses.loss import Sizes, View
from losses.regression import Regression, WhitenedRegression, compute_explained_variance, compute_whitening
from tests.losses.batches import LABELS, SIZES, make_batch


def draw_features(seed=0, count=500, dim=6):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(count, dim)) @ rng.normal(size=(dim, dim)) + rng.normal(size=dim))


def test_whitening_of_a_diagonal_by_hand() -> None:
    covariance = torch.diag(torch.tensor([4.0, 1.0, 0.0], dtype=torch.float64))
    found = compute_whitening(covariance, ridge=0.25)  # adds 1 to each
    torch.testing.assert_close(found, torch.diag(torch.tensor([5**-0.5, 2**-0.5, 1.0], dtype=torch.float64)))
    torch.testing.assert_close(
        compute_whitening(covariance, ridge=0.25, power=0.0), torch.eye(3, dtype=torch.float64)
    )


@pytest.mark.parametrize("power", [-0.5, -0.25])
def test_whitening_is_a_power_of_the_matrix(power) -> None:
    covariance = torch.cov(draw_features().T)
    ridge = 0.01 * torch.linalg.eigvalsh(covariance)[-1]
    expected = scipy.linalg.fractional_matrix_power(covariance.numpy() + ridge.item() * np.eye(6), power)
    np.testing.assert_allclose(compute_whitening(covariance, 0.01, power).numpy(), expected, rtol=1e-8, atol=1e-10)


def test_channels_are_summed_and_images_averaged() -> None:
    loss = WhitenedRegression(2, 3, ridge=0.01)
    with torch.no_grad():
        loss.project_student.weight.zero_()
        loss.project_student.bias.copy_(torch.tensor([1.0, 2.0, 3.0]))
    teacher = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 5.0]])  # as it is, before `finalize_stats`
    assert loss.eval()(torch.zeros(2, 2), teacher).item() == pytest.approx((0 + 1 + 4 + 4) / 2)
    weighted = loss(torch.zeros(2, 2), teacher.flip(0), torch.tensor([0.5, 7.0]))
    assert weighted.item() == pytest.approx((0.5 * (1 + 4 + 4) + 7 * 0) / 2)


def test_explained_variance_by_hand() -> None:
    target = torch.tensor([[0.0, 0.0], [2.0, 4.0]])
    assert compute_explained_variance(target, target) == 1
    assert compute_explained_variance(target.mean(dim=0).expand(2, 2), target) == 0
    assert compute_explained_variance(torch.tensor([[0.0, 0.0], [2.0, 2.0]]), target).item() == pytest.approx(
        1 - 4 / 10
    )


def prepare_loss(taps=None, processes=None, batches=range(5)):
    """The loss after a first pass over so many batches."""
    loss = Regression(ridge=0.1) if taps is None else Regression(taps, ridge=0.1)
    torch.manual_seed(0)
    loss.setup(SIZES if processes is None else Sizes(SIZES.student, SIZES.teacher, LABELS, processes))
    for seed in batches:
        loss.prepare(*make_batch(seed))
    return loss


def test_each_tap_is_a_loop_over_images() -> None:
    loss = prepare_loss()
    loss.finish_prepare()
    student, teacher, samples = make_batch(7, weighted=True)
    found = loss(student, teacher, samples)
    assert found.keys() == {"penultimate", "last"}
    for tap, term in found.items():
        seen = torch.cat([make_batch(seed).teacher.taps[tap].double() for seed in range(5)])
        covariance = torch.cov(seen.T, correction=0)
        ridge = 0.1 * torch.linalg.eigvalsh(covariance)[-1].item()
        shifted = covariance.numpy() + ridge * np.eye(len(covariance))
        matrix = scipy.linalg.fractional_matrix_power(shifted, -0.5)
        variance = np.trace(matrix @ covariance.numpy() @ matrix)
        own = student.taps[tap].double()
        standard = (own - own.mean(dim=0)) / (own.var(dim=0, correction=0) + 1e-5).sqrt()
        layer, expected = loss.at[tap].project_student, 0.0
        for image, weight in enumerate(samples.weights.tolist()):
            white = (teacher.taps[tap][image].double() - seen.mean(dim=0)).numpy() @ matrix
            projected = layer.weight.double() @ standard[image] + layer.bias.double()
            expected += weight * np.square(projected.detach().numpy() - white).sum() / 6 / variance
        assert term.item() == pytest.approx(expected, rel=1e-4)


def test_unwhitened_target_is_the_feature_less_its_mean() -> None:
    loss = Regression({"last": 1.0}, ridge=0.1, whitening=0.0)
    loss.setup(SIZES)
    student, teacher, samples = make_batch(0)
    loss.prepare(student, teacher, samples)
    loss.finish_prepare()
    _, target = loss.at["last"].project(student.taps["last"], teacher.taps["last"])
    feature = teacher.taps["last"]
    torch.testing.assert_close(target, feature - feature.mean(dim=0), rtol=1e-4, atol=1e-5)


def test_first_pass_reads_the_teacher_alone() -> None:
    loss, other = prepare_loss(), prepare_loss(batches=())
    assert loss.first_pass == "teacher"
    for seed in range(5):
        _, teacher, samples = make_batch(seed)
        other.prepare(teacher, teacher, samples)  # as without a student in the first pass
    for one in (loss, other):
        one.finish_prepare()
    assert all(torch.equal(one, other.state_dict()[name]) for name, one in loss.state_dict().items())


def test_first_pass_is_joined_over_processes() -> None:
    sent = []

    class Second:
        def gather(self, tensor):
            sent.append(tensor.clone())
            return tensor

    class First:
        def gather(self, tensor):
            return torch.cat([tensor, sent.pop(0)])

    second, first = (
        prepare_loss(processes=Second(), batches=(3, 4)),
        prepare_loss(processes=First(), batches=(0, 1, 2)),
    )
    whole = prepare_loss()
    for loss in (second, first, whole):
        loss.finish_prepare()
    assert not sent
    for tap in ("penultimate", "last"):
        torch.testing.assert_close(first.at[tap].matrix, whole.at[tap].matrix)
        torch.testing.assert_close(first.at[tap].mean, whole.at[tap].mean)
        torch.testing.assert_close(first.at[tap].variance, whole.at[tap].variance)


def test_unweighted_taps_are_not_read() -> None:
    loss = prepare_loss({"penultimate": 0.0, "last": 2.0})
    loss.finish_prepare()
    student, teacher, samples = make_batch(7)
    last = [View(view.logits, {"last": view.taps["last"]}) for view in (student, teacher)]
    assert loss(*last, samples).keys() == {"last"}
    assert loss.compare(*last).keys() == {"cosine_last", "explained_last"}
    assert {name.partition(".")[0] for name in loss.list_projections()} == {"last"}


def test_comparison_is_of_projected_and_white_features() -> None:
    loss = prepare_loss().eval()
    loss.finish_prepare()
    student, teacher, _ = make_batch(7)
    found = loss.compare(student, teacher)
    for tap in ("penultimate", "last"):
        own, white = (one.detach().double() for one in loss.at[tap].project(student.taps[tap], teacher.taps[tap]))
        cosines = [(a @ b / a.norm() / b.norm()).item() for a, b in zip(own, white, strict=True)]
        assert found[f"cosine_{tap}"] == pytest.approx(np.mean(cosines), rel=1e-4)
        left = ((own - white) ** 2).sum() / ((white - white.mean(dim=0)) ** 2).sum()
        assert found[f"explained_{tap}"] == pytest.approx(1 - left.item(), rel=1e-4)


def test_kept_projections_give_the_compared_features() -> None:
    loss = prepare_loss()
    loss.finish_prepare()
    loss(*make_batch(6))  # running statistics of a batch
    loss.eval()
    student, teacher, _ = make_batch(7)
    kept = loss.list_projections()
    for tap in ("penultimate", "last"):
        expected = loss.at[tap].project(student.taps[tap], teacher.taps[tap])
        for side, view, feature in zip(("student", "teacher"), (student, teacher), expected, strict=True):
            found = F.linear(view.taps[tap], kept[f"{tap}.{side}.weight"], kept[f"{tap}.{side}.bias"])
            torch.testing.assert_close(found, feature.detach(), rtol=1e-4, atol=1e-4)
    assert not any(one.requires_grad for one in kept.values())
